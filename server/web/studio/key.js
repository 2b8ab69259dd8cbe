/** The API key of this tab: asked for when the server wants one, kept until the tab is closed. */

import { button, el } from "./dom.js";

const NAME = "oar.key";

export function key() {
  return sessionStorage.getItem(NAME) ?? "";
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
  asking ??= openDialog(message).finally(() => {
    asking = null;
  });
  return asking;
}

function openDialog(message) {
  const given = key() !== "";
  const field = el("input", {
    id: "key", type: "password", autocomplete: "off", spellcheck: "false", required: true,
    "aria-describedby": "key-message", "aria-invalid": given ? "true" : null,
  });
  const form = el(
    "form", { class: "stack" },
    el("h2", { id: "key-title", text: "This server asks for a key" }),
    el("p", { id: "key-message", class: given ? "fault" : "muted", text: message }),
    el("label", { for: "key", text: "API key" }),
    field,
    el("p", { class: "hint", text: "It is kept in this tab and forgotten when the tab is closed." }),
    el("div", { class: "row end" },
      button("Not now", { on: { click: () => dialog.close("no") } }),
      el("button", { class: "button primary", type: "submit", text: "Use this key" })),
  );
  const dialog = el("dialog", { class: "dialog", "aria-labelledby": "key-title" }, form);
  document.body.append(dialog);
  return new Promise((resolve) => {
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      sessionStorage.setItem(NAME, field.value.trim());
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
