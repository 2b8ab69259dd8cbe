/** The button that begins a request and, while it runs, ends it. */

import { el } from "./dom.js";

export const MAC = /Mac|iPhone|iPad/.test(navigator.userAgent);

export class RunButton {
  constructor(label, { onRun, onCancel }) {
    this.label = label;
    this.isRunning = false;
    this.text = el("span", { text: label });
    this.hint = el("kbd", { text: MAC ? "⌘ ↵" : "Ctrl ↵", "aria-hidden": "true" });
    this.element = el("button", {
      type: "submit", class: "button primary wide", on: { click: (event) => this.click(event) },
    }, this.text, this.hint);
    this.onCancel = onCancel;
    this.onRun = onRun;
  }

  click(event) {
    event.preventDefault();
    if (this.isRunning) this.onCancel();
    else this.onRun();
  }

  set running(isRunning) {
    this.isRunning = isRunning;
    this.text.textContent = isRunning ? "Cancel" : this.label;
    this.element.classList.toggle("stop", isRunning);
  }
}

/** The panel of a view: options, a notice, and the button that runs. */
export function requestForm(label, { options, notice, run }) {
  const foot = el("div", { class: "panel-foot" }, notice.element, run.element);
  const form = el("form", { class: "panel", novalidate: true, "aria-label": label }, options.element, foot);
  runOnEnter(form, run);
  return form;
}

/** Ctrl or Command with Enter, wherever the focus is while the form is shown. */
function runOnEnter(form, run) {
  document.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey) || !form.checkVisibility()) return;
    if (document.querySelector("dialog[open]")) return;
    event.preventDefault();
    if (!run.isRunning) run.onRun();
  });
  form.addEventListener("submit", (event) => event.preventDefault());
}
