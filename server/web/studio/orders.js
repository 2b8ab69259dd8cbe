/** The orders of painting in words, and which of them a comparison begins with. */

/** A list of positions, in place of a name. */
export const CUSTOM = "custom";
export const SHORTLIST = "shortlist";
/** No order of a grid: that of a model of sequences. */
export const COARSE = "coarse to fine";

const WORDS = {
  raster: "Row by row, from the top.",
  spiral: "From the edge inwards.",
  hilbert: "Along one curve that fills the plane.",
  halton: "Evenly spread over the picture.",
  random: "Shuffled, anew with each seed.",
  locality: "Outwards from what is there.",
  spaced: "Next to what is there, and apart within a step.",
  confidence: "Where the model is surest, looked for at each step. Slow.",
  likelihood: "The likeliest draws first: cleaner, less varied.",
  prompted: "The order that the model keeps for prompts like this one.",
  distilled: "Where the model is surest, as its order policy has learned.",
  [SHORTLIST]: "Where the model is surest, among what its order policy proposes.",
  [COARSE]: "All of the picture at once, each step sharper.",
  [CUSTOM]: "The list of positions that came with these settings.",
};

const NUM_FIRST = 3;
const CONTRASTS = ["distilled", "raster", "random", "halton"];

export function orderWords(name) {
  return WORDS[name] ?? "";
}

export function orderName(order) {
  return Array.isArray(order) ? CUSTOM : order;
}

/** The names of two or three orders, `order` the first of them. */
export function contrasting(order, model) {
  const names = [order, ...CONTRASTS.filter((name) => model.orders.includes(name)), ...model.orders];
  return [...new Set(names)].slice(0, NUM_FIRST);
}
