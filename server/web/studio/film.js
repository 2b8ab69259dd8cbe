/**
 * A video as it is made: frame after frame. To who shows it, it is a painting whose steps are its frames: a moment `t` is
 * a number of frames, and what is shown then is the latest of them.
 */

import { Painting } from "./painting.js";

export class Film extends Painting {
  constructor(model) {
    super(model);
    [this.numFrames] = model.layout.shape;
  }

  clear() {
    super.clear();
    this.frames = []; // bitmaps; null until the pixels are there
  }

  get isFilm() {
    return true;
  }

  get length() {
    return this.frames.length;
  }

  get total() {
    return this.numFrames;
  }

  get numWritten() {
    return this.frames.length;
  }

  expected() {
    return this.numFrames;
  }

  countAt() {
    return 0;
  }

  patchesOf() {
    return [];
  }

  /** The latest frame at a moment whose pixels are there. */
  wholeAt(t) {
    return this.frames.slice(0, Math.max(0, t)).findLast((bitmap) => bitmap) ?? null;
  }

  /** A `frame` event; resolves when its pixels, which `load` fetches, are there. */
  async addFrame({ frame }, load) {
    const { frames } = this;
    frames[frame] = null;
    frames[frame] = await createImageBitmap(await load());
  }

  /** A `restarted` event: all but the first `known` frames are made again. */
  keep(known) {
    this.frames.length = Math.min(this.frames.length, known);
  }
}

/** What a job of a model makes. */
export function canvasOf(model, options = {}) {
  return model.layout.kind === "frames" ? new Film(model) : new Painting(model, options);
}
