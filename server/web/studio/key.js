/** The API key: asked for when the server wants one, kept in this browser or, if the reader likes, in this tab alone. */

import { button, el } from "./dom.js";
import { stored } from "./storage.js";

const NAME = "oar.key";

export function key() {
  return sessionStorage.getItem(NAME) ?? stored(NAME) ?? "";
}

function keep(text, isForBrowser) {
  sessionStorage.setItem(NAME, text);
  if (isForBrowser) localStorage.setItem(NAME, text);
  else localStorage.removeItem(NAME);
}

function forgetKey() {
  sessionStorage.removeItem(NAME);
  localStorage.removeItem(NAME);
}

export function keyHeaders() {
  return key() ? { Authorization: `Bearer ${key()}` } : {};
}

/** What a websocket offers, since a browser cannot set its headers; undefined without a key. */
export function keyProtocols() {
  if (!key()) return undefined;
  const bytes = String.fromCharCode(...new TextEncoder().encode(key()));
  const text = btoa(bytes).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
  return ["oar.v1", `oar.key.${text}`];
}

let asking = null;

/** Opens the dialog, once for all who ask at the same time. Resolves to whether a key was given. */
export function askForKey(message) {
  asking ??= openDialog("This server asks for a key", message, { isFault: key() !== "" }).finally(() => {
    asking = null;
  });
  return asking;
}

/** For a reader who is another tenant, or leaves this browser to others. */
export async function changeKey() {
  if (await openDialog("Your key", "Type another one, or let the page forget the one that it uses.")) location.reload();
}

function openDialog(title, message, { isFault = false } = {}) {
  const field = el("input", {
    id: "key", type: "password", autocomplete: "off", spellcheck: "false", required: true,
    "aria-describedby": "key-message", "aria-invalid": isFault ? "true" : null,
  });
  const stays = el("input", { type: "checkbox", props: { checked: true } });
  const forget = button("Forget the key", { on: { click: () => { forgetKey(); location.reload(); } } });
  const form = el(
    "form", { class: "stack" },
    el("h2", { id: "key-title", text: title }),
    el("p", { id: "key-message", class: isFault ? "fault" : "muted", text: message }),
    el("label", { for: "key", text: "API key" }),
    field,
    el("label", { class: "inline" }, stays, el("span", { text: "Keep it in this browser; else until this tab is closed" })),
    el("div", { class: "row end" },
      key() ? forget : null,
      button("Not now", { on: { click: () => dialog.close("no") } }),
      el("button", { class: "button primary", type: "submit", text: "Use this key" })),
  );
  const dialog = el("dialog", { class: "dialog", "aria-labelledby": "key-title" }, form);
  document.body.append(dialog);
  return new Promise((resolve) => {
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      keep(field.value.trim(), stays.checked);
      dialog.close("yes");
    });
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve(dialog.returnValue === "yes");
    });
    dialog.showModal();
    field.focus();
  });
}
