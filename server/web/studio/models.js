/** What the server can paint with: `GET /v1/models`, asked until a model is there. */

import { getJson } from "./api.js";

const PAUSE = 1500; // milliseconds
const MOST_KEPT = 24; // previews of a picture that a request may have kept

let known = null;

/** The models, the default one first. Waits for a server that is still loading one; `onWait` is told so. */
export async function loadModels(onWait = () => {}) {
  while (!known?.length) {
    try {
      const { data } = await getJson("v1/models");
      known = data.toSorted((one, other) => Number(other.is_default) - Number(one.is_default));
      if (!known.length) onWait("No worker has loaded a model yet.");
    } catch (error) {
      if (!error.isPassing) throw error;
      onWait(error.sentence);
    }
    if (!known?.length) await new Promise((resolve) => setTimeout(resolve, PAUSE));
  }
  return known;
}

/** Whether the editor is of use: for parts of a picture, or for variations of whole ones alone. */
export function canEdit(model) {
  return model.can_edit || model.can_vary;
}

export function isSequence(model) {
  return model.layout.kind === "sequence";
}

/** Whether it has orders to compare. */
export function hasOrders(model) {
  return model.orders.length > 1;
}

/** Those that write from coarse to fine, to be compared with a model's orders: they read the same prompts. */
export function rivalsOf(model) {
  return hasOrders(model) ? (known ?? []).filter((other) => isSequence(other) && other.condition === model.condition) : [];
}

/** Whether its pictures can be compared: along its orders, or with a model that has some. */
export function canCompare(model) {
  return hasOrders(model) || (known ?? []).some((other) => rivalsOf(other).includes(model));
}

/** How many previews of a picture are to stay, so that each step can be looked at later: of a sequence alone, where
 * each shows all of the picture. */
export function numKept(model) {
  return isSequence(model) ? Math.min(MOST_KEPT, model.layout.shape.length - 1) : 0;
}

export async function findModel(name) {
  const models = await loadModels();
  return models.find((model) => model.id === name) ?? (await getJson(`v1/models/${encodeURIComponent(name)}`));
}

const classes = new Map(); // by a model's name, the promise of its list

/** The names of a model's classes, by number. */
export function loadClasses(name) {
  if (!classes.has(name)) {
    const found = getJson(`v1/models/${encodeURIComponent(name)}/classes`).then(({ data }) => data);
    found.catch(() => classes.delete(name)); // asked again the next time
    classes.set(name, found);
  }
  return classes.get(name);
}
