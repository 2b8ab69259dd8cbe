/** The line that says how a job is going. */

import { announce } from "./announcer.js";
import { el } from "./dom.js";

export class StatusLine {
  constructor() {
    this.dot = el("span", { class: "dot", "aria-hidden": "true" });
    this.text = el("span", { class: "status-text" });
    this.line = el("span", { class: "line-state", hidden: true, text: "Reconnecting …" });
    this.element = el("p", { class: "status" }, this.dot, this.text, this.line);
    this.said = "";
  }

  show(job) {
    this.set(job.state, sentence(job));
    this.line.hidden = job.isLineUp;
    const spoken = spokenSentence(job);
    if (spoken === this.said) return;
    this.said = spoken;
    announce(spoken);
  }

  set(state, text) {
    this.element.dataset.state = state;
    this.text.textContent = text;
  }
}

export function sentence(job) {
  switch (job.state) {
    case "queued":
      return queued(job);
    case "running":
      return `Painting, ${Math.round(job.progress * 100)} %`;
    case "completed":
      return `Painted in ${seconds(job.seconds)}`;
    case "canceled":
      return "Canceled";
    default:
      return job.fault?.sentence ?? "It failed.";
  }
}

/** Said aloud at quarters alone. */
function spokenSentence(job) {
  if (!job.isLineUp) return "The line broke; reconnecting";
  if (job.state !== "running") return sentence(job);
  return `Painting, ${Math.floor(job.progress * 4) * 25} %`;
}

function queued({ position, eta }) {
  const place = position ? `Waiting, ${position} ahead` : "Waiting, next in line";
  return eta ? `${place}, about ${seconds(eta)} left` : place;
}

export function seconds(value) {
  if (value === null || value === undefined) return "an unknown time";
  if (value >= 90) return `${Math.round(value / 60)} min`;
  return value >= 10 ? `${Math.round(value)} s` : `${value.toFixed(value < 1 ? 2 : 1)} s`;
}
