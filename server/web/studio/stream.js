/** A job's websocket: every event once, from the first to the terminal one, however often the line breaks. */

import { addressOf, ApiError, getJson } from "./api.js";
import { keyProtocols } from "./key.js";

const TERMINAL = new Set(["completed", "failed", "canceled"]);
const PASSING = new Set(["unavailable_error", "authentication_error"]);
const FIRST_WAIT = 250; // milliseconds before the line is taken up again; doubles
const LONGEST_WAIT = 8000;

/**
 * Calls `onEvent(event)` for each event, `onLine(isUp)` when the line breaks and when it is back, and `onFault(error)`
 * once if the job cannot be followed. Returns a function that stops it.
 */
export function follow(url, { onEvent, onLine = () => {}, onFault = () => {} }) {
  let socket = null;
  let seq = 0;
  let wait = FIRST_WAIT;
  let timer = 0;
  let isOver = false;

  function connect() {
    const address = addressOf(`${url}/stream?after=${seq}`);
    address.protocol = address.protocol === "https:" ? "wss:" : "ws:";
    socket = new WebSocket(address, keyProtocols());
    socket.addEventListener("message", receive);
    socket.addEventListener("close", lose);
  }

  function receive({ data }) {
    const event = JSON.parse(data);
    if (event.error && !event.type) return refuse(event.error);
    wait = FIRST_WAIT;
    if (event.seq <= seq) return undefined;
    seq = event.seq;
    onLine(true);
    onEvent(event);
    if (TERMINAL.has(event.type)) stop();
    return undefined;
  }

  /** What passes, or is mended by a key, is left to the close that follows: it takes the line up again. */
  function refuse(error) {
    if (PASSING.has(error.type)) return;
    stop();
    onFault(new ApiError({ ...error, status: 400 }));
  }

  async function lose() {
    if (isOver) return;
    onLine(false);
    try {
      await getJson(url); // says why, where the handshake could not: a key is wanted, the job has expired
    } catch (error) {
      if (!error.isPassing) {
        stop();
        onFault(error);
      }
    }
    if (isOver) return;
    timer = setTimeout(connect, wait);
    wait = Math.min(LONGEST_WAIT, wait * 2);
  }

  function stop() {
    isOver = true;
    clearTimeout(timer);
    socket?.close();
  }

  connect();
  return stop;
}
