/** Maps of a painting: the rank at which each patch was written, and how sure the model was of it. */

import { el } from "./dom.js";

// The animations of the command line have the same ends: what came first is dark.
const RANK = [[38, 20, 72], [104, 40, 110], [190, 68, 92], [240, 134, 80], [252, 233, 160]];
const CONFIDENCE = [[20, 36, 52], [22, 84, 100], [38, 142, 134], [120, 200, 150], [226, 245, 190]];

const LINE = "8 / 1"; // aspect ratio of the map of a sequence, which has not the shape of the picture

const KINDS = {
  rank: {
    title: "Order", ramp: RANK, low: "first", high: "last",
    about: "When each patch was written: dark ones first, light ones last.",
    value: (patch, painting) => patch.rank / Math.max(1, painting.total - painting.numGiven - 1),
  },
  confidence: {
    title: "Confidence", ramp: CONFIDENCE, low: "0 %", high: "100 %",
    about: "The probability of the likeliest token at each patch, when it was written.",
    value: (patch) => patch.confidence,
  },
};

export class HeatMap {
  constructor(kind) {
    this.kind = KINDS[kind];
    this.canvas = el("canvas", { class: "heat crisp", role: "img", "aria-label": `${this.kind.title} of the patches` });
    this.reading = el("span", { class: "reading" });
    const bar = el("canvas", { class: "ramp", width: "128", height: "1", "aria-hidden": "true" });
    this.element = el(
      "figure", { class: "heatmap", title: this.kind.about },
      el("figcaption", {}, el("span", { text: this.kind.title }), this.reading),
      this.canvas,
      el("div", { class: "legend" }, el("span", { text: this.kind.low }), bar, el("span", { text: this.kind.high })),
    );
    drawRamp(bar, this.kind.ramp);
    this.canvas.addEventListener("pointermove", (event) => this.read(event));
    this.canvas.addEventListener("pointerleave", () => (this.reading.textContent = ""));
  }

  show(painting, t) {
    this.painting = painting;
    this.canvas.style.aspectRatio = painting.isSequence ? LINE : `${painting.width} / ${painting.height}`;
    [this.canvas.width, this.canvas.height] = [painting.columns, painting.rows];
    const pen = this.canvas.getContext("2d");
    for (const patch of painting.patches.slice(0, painting.countAt(t))) {
      pen.fillStyle = colour(this.kind.ramp, this.kind.value(patch, painting));
      pen.fillRect(patch.col ?? patch.position, patch.row ?? 0, 1, 1); // a sequence is a line
    }
  }

  read(event) {
    if (!this.painting) return;
    const { left, top, width, height } = this.canvas.getBoundingClientRect();
    const column = Math.floor(((event.clientX - left) / width) * this.painting.columns);
    const row = Math.floor(((event.clientY - top) / height) * this.painting.rows);
    const patch = this.painting.patchAt(row * this.painting.columns + column);
    if (!patch) this.reading.textContent = "";
    else this.reading.textContent = this.kind.ramp === RANK ? `${patch.rank + 1}` : `${Math.round(patch.confidence * 100)} %`;
  }
}

function drawRamp(canvas, ramp) {
  const pen = canvas.getContext("2d");
  for (let x = 0; x < canvas.width; x += 1) {
    pen.fillStyle = colour(ramp, x / (canvas.width - 1));
    pen.fillRect(x, 0, 1, 1);
  }
}

function colour(ramp, share) {
  const place = Math.min(1, Math.max(0, share)) * (ramp.length - 1);
  const index = Math.min(ramp.length - 2, Math.floor(place));
  const mixed = ramp[index].map((low, channel) => low + (ramp[index + 1][channel] - low) * (place - index));
  return `rgb(${mixed.map(Math.round).join(" ")})`;
}
