/** What an option's values are called, and how many there are, by what a model says of it. */

const MOST_STOPS = 4096; // of a slider over all whole numbers of an option
const WORDS = {
  top_k: (value) => (value === 0 ? "all" : String(value)),
  candidates: (value) => `${value} for each patch`,
  guidance: (value) => (value === 1 ? "off" : value.toFixed(2)),
  repulsion: (value) => (value === 1 ? "none" : patches(value)),
  revise: (value) => (value === 0 ? "none" : patches(value)),
};
const UNITS = { share: (value) => `${Math.round(100 * value)} %`, nats: (value) => `${value} nats` };

/** A value of an option as its form and a picture's page show it. */
export function optionWords(option, value) {
  if (Array.isArray(value)) return value.map((part) => optionWords(option, part)).join(option.is_pair ? " to " : " ");
  if (typeof value !== "number") return String(value);
  const words = WORDS[option.name] ?? UNITS[option.unit] ?? (option.kind === "number" ? (number) => number.toFixed(2) : String);
  return words(value);
}

/** The least, the most and the step of a slider; null where a number has too many values for one. */
export function stops({ kind, usual, minimum, maximum }) {
  if (usual) return usual;
  const isShort = kind === "integer" && minimum !== null && maximum !== null && maximum - minimum < MOST_STOPS;
  return isShort ? [minimum, maximum, 1] : null;
}

/** Whether there is nothing to choose. */
export function hasOneValue({ choices = [], minimum = null, maximum = null }) {
  return choices.length === 1 || (minimum !== null && minimum === maximum);
}

function patches(count) {
  return `${count} ${count === 1 ? "patch" : "patches"}`;
}
