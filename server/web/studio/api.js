/** The server over HTTP: JSON, pictures and its errors. */

import { askForKey, keyHeaders } from "./key.js";

// Where the server is: this module lies one folder below, whatever path a proxy serves it under.
const BASE = new URL("..", import.meta.url);

const LONG_SEED = /"seed":\s*(\d{16,})/g; // beyond what a number holds exactly; kept as text
const MOST_TURNS = 5; // of a GET that is told to come later
const TEXT_SEED = /"seed":"(\d+)"/g;

/** What the server refused, in its own words. */
export class ApiError extends Error {
  constructor({ message, code = "unreachable", field = null, status = 0, retryAfter = null }) {
    super(message);
    this.code = code;
    this.field = field;
    this.status = status;
    this.retryAfter = retryAfter;
  }

  /** Whether what was asked for has expired, or never was. */
  get isGone() {
    return this.status === 404 || this.status === 410;
  }

  /** Whether the same request may go through later. */
  get isPassing() {
    return this.status === 0 || this.status === 503;
  }

  get sentence() {
    const text = this.message.charAt(0).toUpperCase() + this.message.slice(1);
    const ended = /[.!?]$/.test(text) ? text : `${text}.`;
    return this.retryAfter === null ? ended : `${ended} Try again in ${this.retryAfter} s.`;
  }
}

/** The address of `path`, such as `v1/models`, on this server. */
export function addressOf(path) {
  return new URL(path, BASE);
}

export async function getJson(path) {
  return readJson(await send("GET", path));
}

export async function postJson(path, body) {
  const text = JSON.stringify(body).replace(TEXT_SEED, '"seed":$1');
  return readJson(await send("POST", path, { body: text, headers: { "Content-Type": "application/json" } }));
}

export async function remove(path) {
  return readJson(await send("DELETE", path));
}

/** A picture as it was sent, fetched with the key's header. */
export async function getBlob(path) {
  return (await send("GET", path)).blob();
}

async function readJson(answer) {
  return parseJson(await answer.text());
}

/** Seeds that a number would round stay text. */
export function parseJson(text) {
  return JSON.parse(text.replace(LONG_SEED, '"seed":"$1"'));
}

/** Goes on where the server wants a key, or a little patience with what changes nothing. Throws ApiError. */
async function send(method, path, options = {}) {
  for (let turn = 1; ; turn += 1) {
    const answer = await attempt(method, path, options);
    if (answer.ok) return answer;
    const error = await readError(answer);
    if (answer.status === 429 && method === "GET" && turn <= MOST_TURNS) await pause(error.retryAfter ?? 1);
    else if (answer.status !== 401 || !(await askForKey(error.sentence))) throw error;
  }
}

/** A gallery asks for many pictures at once: they come back at different times. */
function pause(seconds) {
  return new Promise((resolve) => setTimeout(resolve, seconds * 1000 * (1 + Math.random())));
}

async function attempt(method, path, { body, headers = {} }) {
  try {
    return await fetch(addressOf(path), { method, body, headers: { ...headers, ...keyHeaders() }, credentials: "omit" });
  } catch {
    throw new ApiError({ message: "The server cannot be reached." });
  }
}

async function readError(answer) {
  const after = Number(answer.headers.get("Retry-After") ?? Number.NaN);
  const facts = { status: answer.status, retryAfter: Number.isFinite(after) ? after : null };
  try {
    const { error } = await answer.json();
    return new ApiError({ ...error, ...facts });
  } catch {
    return new ApiError({ message: `The server answered with status ${answer.status}.`, code: "no_reason", ...facts });
  }
}
