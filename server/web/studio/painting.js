/**
 * How one picture is painted: which positions each step wrote, the decoder's guesses on the way, and the final pixels.
 * A moment `t` is a number of steps: 0 is the empty canvas, `length` the finished one.
 */
export class Painting {
  /** `numGiven` positions are known from the start; `source` shows them, as a bitmap. */
  constructor(model, { numGiven = 0, source = null } = {}) {
    [this.rows, this.columns] = model.grid;
    [this.height, this.width] = model.image_size;
    this.isCrisp = model.pixel_art;
    this.isSequence = model.layout.kind === "sequence"; // its tokens have no places in the picture
    this.numGiven = numGiven;
    this.source = source;
    this.final = null;
    this.clear();
  }

  clear() {
    this.steps = [];
    this.patches = []; // in the order of their ranks; `step` is the index of their step
    this.places = new Map(); // position -> index in `patches`
    this.guesses = [];
    this.numSteps = 0;
  }

  get length() {
    return this.steps.length;
  }

  get total() {
    return this.rows * this.columns;
  }

  get isFilm() {
    return false;
  }

  /** Patches that this job has written. */
  get numWritten() {
    return this.patches.length;
  }

  /** Steps that it takes, as far as is known. */
  expected(params) {
    return Math.max(this.numSteps, params.steps);
  }

  /** The whole picture at a moment, where it is there. */
  wholeAt(t) {
    return this.final && t >= this.length ? this.final : null;
  }

  get isComplete() {
    return this.final !== null;
  }

  /** Patches that are written at a moment. */
  countAt(t) {
    return t <= 0 || !this.steps.length ? 0 : this.steps[Math.min(t, this.length) - 1].end;
  }

  /** The patches of one step, counted from 1. */
  patchesOf(t) {
    const step = this.steps[t - 1];
    return step ? this.patches.slice(step.start, step.end) : [];
  }

  patchAt(position) {
    const index = this.places.get(position);
    return index === undefined ? null : this.patches[index];
  }

  /** The guess that knows most at a moment, of two alike the one without loss; `written` counts what it knows. */
  guessAt(t) {
    const count = this.countAt(t);
    const past = this.guesses.filter((guess) => guess.bitmap && guess.written <= count);
    return past.reduce((best, guess) => (isBetter(guess, best) ? guess : best), null);
  }

  /** The moments at which a picture of exactly what was written then is there, and both ends. */
  get moments() {
    const known = new Set(this.guesses.filter(({ bitmap }) => bitmap).map(({ written }) => written));
    const between = this.steps.flatMap(({ end }, index) => (known.has(end) ? [index + 1] : []));
    return [...new Set([0, ...between, this.length])];
  }

  /** Of a sequence: how many tokens what is shown is made of, and what resolution they tell of. */
  budgetAt(t) {
    const { total, numGiven } = this;
    const written = numGiven + this.countAt(t);
    if (this.wholeAt(t)) return { known: total, total, written: total, pixels: pixelWords([this.width, this.height]) };
    const guess = this.guessAt(t);
    return { known: guess?.known ?? 0, total, written, pixels: guess && pixelWords(guess.resolution) };
  }

  /** A `patches` event. */
  addStep({ patches, steps }) {
    this.numSteps = steps;
    const start = this.patches.length;
    for (const patch of patches) {
      this.places.set(patch.position, this.patches.length);
      this.patches.push({ ...patch, step: this.steps.length });
    }
    this.steps.push({ start, end: this.patches.length });
  }

  /** A `revised` event: tokens that were drawn again when all had been; each keeps its rank and its step. */
  revise({ patches }) {
    for (const patch of patches) {
      const index = this.places.get(patch.position);
      if (index !== undefined) Object.assign(this.patches[index], { ...patch, rank: this.patches[index].rank, isRevised: true });
    }
  }

  /** A `preview` event, or a `partial` one, which has no loss; resolves when its pixels are there. */
  async addGuess({ type, known, mime, data, resolution }) {
    const guess = {
      written: known - this.numGiven, known, isExact: type === "partial", resolution: resolution ?? [this.width, this.height], bitmap: null,
    };
    const { guesses } = this;
    guesses.push(guess);
    const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
    guess.bitmap = await createImageBitmap(new Blob([bytes], { type: mime }));
  }

  /** A `restarted` event: all but the first `known` patches are painted again. */
  keep(known) {
    const { steps, patches, guesses } = this;
    this.clear();
    for (const { start, end } of steps) {
      const kept = patches.slice(start, Math.min(end, known));
      if (kept.length) this.addStep({ patches: kept, steps: steps.length });
    }
    this.guesses = guesses.filter((guess) => guess.written <= this.patches.length && known > 0);
  }
}

function isBetter(guess, best) {
  if (!best || guess.written !== best.written) return !best || guess.written > best.written;
  return guess.isExact || !best.isExact;
}

function pixelWords([width, height]) {
  return width === height ? `${width} px` : `${width} x ${height} px`;
}

/** A budget in words: "16 of 64 tokens: 22 px". */
export function budgetWords({ known, total, written, pixels }) {
  const shown = `${known} of ${total} tokens${pixels ? `: ${pixels}` : ""}`;
  return written > known ? `${shown} (${written} written)` : shown;
}
