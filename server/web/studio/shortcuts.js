/** The keys that the page knows, and the list of them that `?` opens. */

import { button, el } from "./dom.js";
import { MAC } from "./run.js";

const COMMAND = MAC ? "⌘" : "Ctrl";
const GROUPS = [
  ["Everywhere", [
    [[COMMAND, "Enter"], "Paint what the form says"],
    [["?"], "This list"],
  ]],
  ["On a picture", [
    [["Space"], "Play or pause"],
    [["←", "→"], "A step back or on"],
    [["Home", "End"], "The empty canvas, the finished picture"],
  ]],
  ["In Edit", [
    [["B", "E"], "Brush, eraser"],
    [["[", "]"], "A smaller or a larger brush"],
    [[COMMAND, "Z"], "Take the last stroke back"],
    [["←", "→", "↑", "↓", "Space"], "On the picture: go to a patch, mark it"],
  ]],
];
const ALSO = "Drop or paste a picture anywhere to edit it. Drop one that was painted here on Create, or its JSON, to take over its settings.";

export function showShortcuts() {
  if (document.querySelector("dialog[open]")) return;
  const dialog = el("dialog", { class: "dialog", "aria-labelledby": "shortcuts-title" },
    el("div", { class: "stack" },
      el("h2", { id: "shortcuts-title", text: "Keys" }),
      GROUPS.map(([title, rows]) => el("section", { class: "keys" }, el("h3", { text: title }), el("dl", {}, rows.map(describe)))),
      el("p", { class: "hint", text: ALSO }),
      el("div", { class: "row end" }, button("Close", { kind: "solid", on: { click: () => dialog.close() } }))));
  dialog.addEventListener("close", () => dialog.remove());
  document.body.append(dialog);
  dialog.showModal();
}

function describe([keys, text]) {
  return el("div", {}, el("dt", {}, keys.map((key) => el("kbd", { text: key }))), el("dd", { text }));
}

const TAKES_LETTERS = "textarea, select, input:not([type=range], [type=checkbox], [type=radio])";
const TAKES_OTHERS = "input, textarea, select, button, a, summary, [role=application]";

/** Calls `act(event)` for keys that the focused control does not want. */
export function onFreeKey(act) {
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
    const isLetter = event.key.length === 1 && event.key !== " ";
    if (event.target.matches(isLetter ? TAKES_LETTERS : TAKES_OTHERS)) return;
    act(event);
  });
}
