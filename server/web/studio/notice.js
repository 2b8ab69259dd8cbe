/** A sentence about what went wrong, where it cannot stand beside a field. */

import { el } from "./dom.js";

export class Notice {
  constructor() {
    this.element = el("p", { class: "notice", role: "alert", hidden: true });
  }

  show(text, { isMild = false } = {}) {
    this.element.textContent = text;
    this.element.classList.toggle("mild", isMild);
    this.element.hidden = false;
  }

  hide() {
    this.element.hidden = true;
  }
}

/** What the model will not do of what a job asks for, in one sentence each. */
export function warn(job, notice) {
  if (job.warnings.length) notice.show(`${job.warnings.join("; ")}.`, { isMild: true });
}

/** Beside its field if the form has one, else as a notice. Anything but an error of the server is a mistake of ours. */
export function explain(error, options, notice) {
  if (!("sentence" in error)) {
    notice.show("The page made a mistake; the browser's console says more.");
    throw error;
  }
  if (!options?.fail(error)) notice.show(error.sentence);
}
