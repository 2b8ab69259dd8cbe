/** The canvas on which a mask is painted over a picture, or a picture is moved about on the model's canvas. */

import { el } from "./dom.js";
import { Mask } from "./mask.js";
import { covering, fitting } from "./upload.js";

const TINT = 0.42; // opacity of what will be painted anew
const ARROWS = { ArrowUp: [0, -1], ArrowDown: [0, 1], ArrowLeft: [-1, 0], ArrowRight: [1, 0] };

const HELP = {
  mask: "Mask. Paint with the pointer; or move by a patch with the arrow keys, and mark or clear it with space.",
  fixed: "The picture that is varied.",
  extend: "Placement. Drag the picture, or move it by a patch with the arrow keys.",
};

export class Retouch {
  constructor(model, onChange) {
    this.onChange = onChange;
    this.radius = 6; // pixels of the picture
    this.value = 1; // 1 marks, 0 clears
    this.isExtending = false;
    this.isFixed = false; // no mask, and nothing is moved
    this.offset = { x: 0, y: 0 };
    this.picture = null;
    this.pointer = null;
    this.cursor = null; // patch under the keyboard
    this.last = null;
    this.canvas = el("canvas", { class: "canvas-view retouch", tabindex: "0", role: "application" });
    this.listen();
    new ResizeObserver(() => this.draw()).observe(this.canvas);
    this.setModel(model);
  }

  setModel(model) {
    this.model = model;
    const snaps = this.mask?.snaps ?? true;
    this.mask = new Mask(model);
    this.mask.snaps = snaps;
    this.radius = Math.max(1, Math.round(Math.min(this.mask.patchWidth, this.mask.patchHeight) * 0.5));
    const [height, width] = model.image_size;
    this.canvas.style.aspectRatio = `${width} / ${height}`;
    this.canvas.classList.toggle("crisp", model.pixel_art);
    if (this.picture) this.setPicture(this.picture);
  }

  setPicture(bitmap) {
    this.picture = bitmap;
    this.mask.undos = [];
    this.mask.pixels.fill(0);
    this.prepare();
  }

  setExtending(isExtending) {
    if (isExtending === this.isExtending) return;
    this.isExtending = isExtending;
    this.mask.undos = [];
    this.mask.pixels.fill(0);
    if (isExtending) this.offset = { x: 0, y: Math.round(this.mask.patchHeight * Math.ceil(this.mask.rows / 4)) };
    this.prepare();
  }

  prepare() {
    const help = this.isExtending ? HELP.extend : HELP.mask;
    this.canvas.setAttribute("aria-label", this.isFixed ? HELP.fixed : help);
    this.canvas.classList.toggle("fixed", this.isFixed);
    if (!this.picture) return;
    const { width, height } = this.mask;
    this.source = (this.isExtending ? fitting : covering)(this.picture, width, height);
    this.place();
  }

  /** After the picture has moved. */
  place() {
    if (this.isExtending) this.mask.surround(this.offset.x, this.offset.y, this.source.width, this.source.height);
    this.change();
  }

  moveTo(x, y) {
    const { mask, source } = this;
    this.offset = {
      x: Math.min(mask.width - 1, Math.max(1 - source.width, Math.round(x))),
      y: Math.min(mask.height - 1, Math.max(1 - source.height, Math.round(y))),
    };
    this.place();
  }

  /** The picture where it lies on the model's canvas. */
  composed() {
    const { mask, source, offset, isExtending } = this;
    const canvas = new OffscreenCanvas(mask.width, mask.height);
    canvas.getContext("2d").drawImage(source, isExtending ? offset.x : 0, isExtending ? offset.y : 0);
    return canvas;
  }

  change() {
    this.draw();
    this.onChange();
  }

  // pointer and keys

  listen() {
    this.canvas.addEventListener("pointerdown", (event) => this.press(event));
    this.canvas.addEventListener("pointermove", (event) => this.drag(event));
    this.canvas.addEventListener("pointerup", () => (this.last = null));
    this.canvas.addEventListener("pointercancel", () => (this.last = null));
    this.canvas.addEventListener("pointerleave", () => {
      this.pointer = null;
      this.draw();
    });
    this.canvas.addEventListener("keydown", (event) => this.onKey(event));
    this.canvas.addEventListener("blur", () => {
      this.cursor = null;
      this.draw();
    });
  }

  at(event) {
    const { left, top, width, height } = this.canvas.getBoundingClientRect();
    return { x: ((event.clientX - left) / width) * this.mask.width, y: ((event.clientY - top) / height) * this.mask.height };
  }

  press(event) {
    if (!this.picture || this.isFixed || event.button !== 0) return;
    this.canvas.setPointerCapture(event.pointerId);
    this.last = this.at(event);
    this.cursor = null;
    if (this.isExtending) {
      this.grip = { x: this.last.x - this.offset.x, y: this.last.y - this.offset.y };
      return;
    }
    this.mask.begin();
    this.mask.dab(this.last.x, this.last.y, this.radius, this.value);
    this.change();
  }

  drag(event) {
    if (!this.picture) return;
    const point = this.at(event);
    this.pointer = point;
    if (!this.last) {
      this.draw();
      return;
    }
    if (this.isExtending) {
      this.moveTo(...this.snapped(point.x - this.grip.x, point.y - this.grip.y));
      return;
    }
    for (const each of event.getCoalescedEvents?.() ?? []) this.paintTo(this.at(each));
    this.paintTo(point);
    this.change();
  }

  paintTo(point) {
    this.mask.stroke(this.last, point, this.radius, this.value);
    this.last = point;
  }

  snapped(x, y) {
    if (!this.mask.snaps) return [x, y];
    const { patchWidth, patchHeight } = this.mask;
    return [Math.round(x / patchWidth) * patchWidth, Math.round(y / patchHeight) * patchHeight];
  }

  onKey(event) {
    const arrow = ARROWS[event.key];
    if (!this.picture || this.isFixed || !(arrow || event.key === " ")) return;
    event.preventDefault();
    if (this.isExtending) {
      if (arrow) this.moveTo(this.offset.x + arrow[0] * this.mask.patchWidth, this.offset.y + arrow[1] * this.mask.patchHeight);
      return;
    }
    this.cursor ??= { row: 0, column: 0 };
    if (arrow) this.moveCursor(...arrow);
    else this.toggleCursor();
    this.change();
  }

  moveCursor(right, down) {
    const { rows, columns } = this.mask;
    this.cursor = {
      row: (this.cursor.row + down + rows) % rows, column: (this.cursor.column + right + columns) % columns,
    };
  }

  toggleCursor() {
    const { row, column } = this.cursor;
    this.mask.begin();
    this.mask.fillPatch(row, column, this.mask.isMarked(row, column) ? 0 : 1);
  }

  // drawing

  draw() {
    const { canvas, mask } = this;
    canvas.parentElement?.style.setProperty("--aspect", mask.width / mask.height);
    const { width, height } = canvas.getBoundingClientRect();
    const ratio = window.devicePixelRatio || 1;
    if (!width) return;
    [canvas.width, canvas.height] = [Math.round(width * ratio), Math.round(height * ratio)];
    const pen = canvas.getContext("2d");
    pen.imageSmoothingEnabled = Math.max(mask.width, mask.height) >= 384;
    if (!this.source) return;
    pen.drawImage(this.composed(), 0, 0, canvas.width, canvas.height);
    this.drawMask(pen);
    this.drawPatches(pen);
    this.drawPointer(pen);
  }

  get accent() {
    return getComputedStyle(this.canvas).accentColor;
  }

  drawMask(pen) {
    const tint = this.mask.toCanvas(channels(this.accent));
    pen.globalAlpha = this.isExtending ? TINT / 3 : TINT;
    pen.drawImage(tint, 0, 0, this.canvas.width, this.canvas.height);
    pen.globalAlpha = 1;
  }

  drawPatches(pen) {
    pen.strokeStyle = this.accent;
    pen.lineWidth = Math.max(1, this.canvas.width / 480);
    pen.globalAlpha = 0.9;
    for (const { row, column } of this.mask.patches()) this.outline(pen, row, column);
    pen.globalAlpha = 1;
    if (!this.cursor) return;
    pen.lineWidth = Math.max(3, this.canvas.width / 160);
    this.outline(pen, this.cursor.row, this.cursor.column);
  }

  outline(pen, row, column) {
    const { rows, columns } = this.mask;
    const [width, height] = [this.canvas.width / columns, this.canvas.height / rows];
    pen.strokeRect(column * width, row * height, width, height);
  }

  drawPointer(pen) {
    if (!this.pointer || this.isExtending || this.isFixed) return;
    const scale = this.canvas.width / this.mask.width;
    pen.beginPath();
    pen.arc(this.pointer.x * scale, this.pointer.y * scale, Math.max(2, this.radius * scale), 0, 2 * Math.PI);
    pen.lineWidth = 3;
    pen.strokeStyle = "rgb(0 0 0 / .55)";
    pen.stroke();
    pen.lineWidth = 1.5;
    pen.strokeStyle = "#fff";
    pen.stroke();
  }
}

/** Red, green, blue and full opacity of a computed colour. */
function channels(colour) {
  const pen = new OffscreenCanvas(1, 1).getContext("2d");
  pen.fillStyle = colour;
  pen.fillRect(0, 0, 1, 1);
  return [...pen.getImageData(0, 0, 1, 1).data.subarray(0, 3), 255];
}
