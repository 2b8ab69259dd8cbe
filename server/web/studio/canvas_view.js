/** Draws a painting at a moment on a canvas, and marks the patches that are new. */

import { el, wantsLessMotion } from "./dom.js";

const MARK_MILLISECONDS = 700;
const VEILED = 0.4; // opacity of a guess at what is not written yet
const GRID_UP_TO = 1024; // patches; more would be a moire

export class CanvasView {
  constructor({ label = "The picture", interactive = false } = {}) {
    this.canvas = el("canvas", { class: "canvas-view", role: "img", "aria-label": label });
    this.interactive = interactive;
    this.painting = null;
    this.t = 0;
    this.marked = new Map(); // position -> when it was marked
    this.frame = 0;
    new ResizeObserver(() => this.fit()).observe(this.canvas);
  }

  set label(text) {
    this.canvas.setAttribute("aria-label", text);
  }

  /** Shows `painting` at moment `t`; `mark` frames the patches of the steps since the moment before. */
  show(painting, t, { mark = false } = {}) {
    if (painting !== this.painting) {
      this.marked.clear();
      this.canvas.style.aspectRatio = `${painting.width} / ${painting.height}`;
      this.canvas.parentElement?.style.setProperty("--aspect", painting.width / painting.height);
      this.canvas.classList.toggle("crisp", painting.isCrisp);
    }
    if (mark) this.mark(painting, painting === this.painting && t > this.t ? this.t : t - 1, t);
    else this.marked.clear();
    Object.assign(this, { painting, t });
    this.draw();
  }

  mark(painting, from, to) {
    if (painting.isSequence) return;
    const now = performance.now();
    for (let step = Math.max(0, from) + 1; step <= to; step += 1) {
      for (const { position } of painting.patchesOf(step)) this.marked.set(position, now);
    }
  }

  fit() {
    const { width, height } = this.canvas.getBoundingClientRect();
    const ratio = window.devicePixelRatio || 1;
    const size = [Math.max(1, Math.round(width * ratio)), Math.max(1, Math.round(height * ratio))];
    if (this.canvas.width === size[0] && this.canvas.height === size[1]) return;
    [this.canvas.width, this.canvas.height] = size;
    this.draw();
  }

  draw() {
    cancelAnimationFrame(this.frame);
    if (!this.painting || this.canvas.width < 2) return;
    const pen = this.canvas.getContext("2d");
    pen.clearRect(0, 0, this.canvas.width, this.canvas.height);
    pen.imageSmoothingEnabled = !this.painting.isCrisp;
    this.drawPicture(pen);
    if (this.drawMarks(pen)) this.frame = requestAnimationFrame(() => this.draw());
  }

  drawPicture(pen) {
    const { painting, t, canvas } = this;
    const whole = painting.wholeAt(t);
    if (whole) {
      pen.drawImage(whole, 0, 0, canvas.width, canvas.height);
      return;
    }
    const guess = painting.guessAt(t);
    if (!painting.isSequence) this.drawGround(pen);
    if (guess) {
      pen.globalAlpha = painting.isSequence ? 1 : VEILED;
      pen.drawImage(guess.bitmap, 0, 0, canvas.width, canvas.height);
      pen.globalAlpha = 1;
    }
    if (!painting.isSequence) this.drawWritten(pen, guess);
  }

  /** A quiet lattice: the patches that will be written. */
  drawGround(pen) {
    const { rows, columns } = this.painting;
    if (rows * columns > GRID_UP_TO) return;
    pen.fillStyle = getComputedStyle(this.canvas).color;
    const side = Math.max(1, Math.round(this.canvas.width / columns / 22));
    for (let position = 0; position < rows * columns; position += 1) {
      const [x, y, width, height] = this.box(position);
      pen.fillRect(Math.round(x + (width - side) / 2), Math.round(y + (height - side) / 2), side, side);
    }
  }

  drawWritten(pen, guess) {
    const { painting, t } = this;
    const count = painting.countAt(t);
    const given = painting.final ?? painting.source ?? guess?.bitmap;
    for (let position = 0; position < painting.total; position += 1) {
      const index = painting.places.get(position);
      const isGiven = index === undefined && painting.numGiven > 0 && (painting.final || painting.source);
      if (isGiven) this.drawPatch(pen, given, position);
      else if (index !== undefined && index < count) {
        const pixels = painting.final ?? (guess && index < guess.written ? guess.bitmap : null);
        if (pixels) this.drawPatch(pen, pixels, position);
        else this.drawPromise(pen, position);
      }
    }
  }

  drawPatch(pen, bitmap, position) {
    const { rows, columns } = this.painting;
    const row = Math.floor(position / columns);
    const column = position % columns;
    const [width, height] = [bitmap.width / columns, bitmap.height / rows];
    const box = this.box(position);
    pen.clearRect(...box);
    pen.drawImage(bitmap, column * width, row * height, width, height, ...box);
  }

  /** A patch that is written, and whose pixels come with the next guess. */
  drawPromise(pen, position) {
    pen.fillStyle = getComputedStyle(this.canvas).color;
    pen.globalAlpha = 0.5;
    pen.fillRect(...this.box(position));
    pen.globalAlpha = 1;
  }

  /** Whether there are marks that still fade. */
  drawMarks(pen) {
    if (!this.marked.size) return false;
    const now = performance.now();
    const still = wantsLessMotion();
    pen.strokeStyle = getComputedStyle(this.canvas).accentColor;
    pen.lineWidth = Math.max(1.5, this.canvas.width / 260);
    for (const [position, since] of this.marked) {
      const age = (now - since) / MARK_MILLISECONDS;
      if (age >= 1) {
        this.marked.delete(position);
        continue;
      }
      const [x, y, width, height] = this.box(position);
      const inset = pen.lineWidth / 2;
      pen.globalAlpha = still ? 1 : 1 - age ** 2;
      pen.strokeRect(x + inset, y + inset, width - 2 * inset, height - 2 * inset);
    }
    pen.globalAlpha = 1;
    return this.marked.size > 0;
  }

  /** Left, top, width and height of a patch, in pixels of the canvas. */
  box(position) {
    const { rows, columns } = this.painting;
    const row = Math.floor(position / columns);
    const column = position % columns;
    const [left, right] = [column, column + 1].map((edge) => Math.round((edge * this.canvas.width) / columns));
    const [top, bottom] = [row, row + 1].map((edge) => Math.round((edge * this.canvas.height) / rows));
    return [left, top, right - left, bottom - top];
  }
}
