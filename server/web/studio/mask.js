/** Which pixels of a picture are painted anew, and which tokens of the grid that takes. */

const MOST_UNDOS = 60;

export class Mask {
  /** `snaps`: a brush takes whole patches of the grid. */
  constructor(model) {
    [this.rows, this.columns] = model.grid;
    [this.height, this.width] = model.image_size;
    this.snaps = true;
    this.pixels = new Uint8Array(this.width * this.height);
    this.undos = [];
  }

  get patchWidth() {
    return this.width / this.columns;
  }

  get patchHeight() {
    return this.height / this.rows;
  }

  get isEmpty() {
    return !this.pixels.includes(1);
  }

  /** To be called before a stroke or any other change that one undo takes back. */
  begin() {
    this.undos.push(this.pixels.slice());
    if (this.undos.length > MOST_UNDOS) this.undos.shift();
  }

  undo() {
    const before = this.undos.pop();
    if (before) this.pixels = before;
    return before !== undefined;
  }

  invert() {
    this.begin();
    this.pixels = this.pixels.map((value) => 1 - value);
  }

  clear() {
    this.begin();
    this.pixels.fill(0);
  }

  /** A dab of the brush; all in pixels of the picture. `value` 1 marks, 0 clears. */
  dab(x, y, radius, value) {
    if (this.snaps) this.dabPatches(x, y, radius, value);
    else this.dabPixels(x, y, Math.max(0.5, radius), value);
  }

  /** Dabs along a line, close enough to leave no gap. */
  stroke(from, to, radius, value) {
    const distance = Math.hypot(to.x - from.x, to.y - from.y);
    const count = Math.max(1, Math.ceil(distance / Math.max(0.5, radius / 2)));
    for (let index = 1; index <= count; index += 1) {
      const share = index / count;
      this.dab(from.x + (to.x - from.x) * share, from.y + (to.y - from.y) * share, radius, value);
    }
  }

  dabPixels(x, y, radius, value) {
    const [top, bottom] = [Math.max(0, Math.floor(y - radius)), Math.min(this.height - 1, Math.ceil(y + radius))];
    const [left, right] = [Math.max(0, Math.floor(x - radius)), Math.min(this.width - 1, Math.ceil(x + radius))];
    for (let row = top; row <= bottom; row += 1) {
      for (let column = left; column <= right; column += 1) {
        if (Math.hypot(column + 0.5 - x, row + 0.5 - y) <= radius) this.pixels[row * this.width + column] = value;
      }
    }
  }

  dabPatches(x, y, radius, value) {
    for (let row = 0; row < this.rows; row += 1) {
      for (let column = 0; column < this.columns; column += 1) {
        const [left, top] = [column * this.patchWidth, row * this.patchHeight];
        const nearX = Math.min(Math.max(x, left), left + this.patchWidth);
        const nearY = Math.min(Math.max(y, top), top + this.patchHeight);
        const isInside = x >= left && x < left + this.patchWidth && y >= top && y < top + this.patchHeight;
        if (isInside || Math.hypot(nearX - x, nearY - y) < radius * 0.8) this.fillPatch(row, column, value);
      }
    }
  }

  fillPatch(row, column, value) {
    for (const line of this.linesOf(row, column)) line.fill(value);
  }

  /** The pixels of a patch, line by line. */
  linesOf(row, column) {
    const [left, right] = [column, column + 1].map((edge) => Math.round(edge * this.patchWidth));
    const [top, bottom] = [row, row + 1].map((edge) => Math.round(edge * this.patchHeight));
    const starts = Array.from({ length: bottom - top }, (_, line) => (top + line) * this.width);
    return starts.map((start) => this.pixels.subarray(start + left, start + right));
  }

  /** Marks everything outside of a picture that lies at `left`, `top`. */
  surround(left, top, width, height) {
    this.pixels.fill(1);
    for (let y = Math.max(0, top); y < Math.min(this.height, top + height); y += 1) {
      this.pixels.fill(0, y * this.width + Math.max(0, left), y * this.width + Math.min(this.width, left + width));
    }
  }

  isMarked(row, column) {
    return this.linesOf(row, column).some((line) => line.includes(1));
  }

  /** The patches that are rewritten: those with at least one marked pixel. */
  patches() {
    const touched = [];
    for (let row = 0; row < this.rows; row += 1) {
      for (let column = 0; column < this.columns; column += 1) if (this.isMarked(row, column)) touched.push({ row, column });
    }
    return touched;
  }

  /** Marked pixels in `colour`, or, for the server, cut out of an opaque picture. */
  toCanvas(colour = null) {
    const canvas = new OffscreenCanvas(this.width, this.height);
    const pen = canvas.getContext("2d");
    const image = pen.createImageData(this.width, this.height);
    this.pixels.forEach((value, index) => {
      if (colour && value) image.data.set(colour, 4 * index);
      else if (!colour && !value) image.data[4 * index + 3] = 255;
    });
    pen.putImageData(image, 0, 0);
    return canvas;
  }
}
