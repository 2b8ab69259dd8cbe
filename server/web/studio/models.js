/** What the server can paint with: `GET /v1/models`, asked until a model is there. */

import { getJson } from "./api.js";

const PAUSE = 1500; // milliseconds

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

export function canEdit(model) {
  return model.can_edit;
}

/** Whether there are orders to compare. */
export function canCompare(model) {
  return model.orders.length > 1;
}

export async function findModel(name) {
  const models = await loadModels();
  return models.find((model) => model.id === name) ?? (await getJson(`v1/models/${encodeURIComponent(name)}`));
}
