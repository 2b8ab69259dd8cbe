/** The pictures that this browser has asked for: ids and words in localStorage; the pictures stay on the server. */

import { store, stored } from "./storage.js";

const NAME = "oar.shelf";
const MOST = 240;

/** Newest first. */
export function shelf() {
  try {
    const entries = JSON.parse(stored(NAME) ?? "[]");
    return Array.isArray(entries) ? entries : [];
  } catch {
    return []; // another page of this host wrote something else there
  }
}

export function remember(job, index) {
  const { prompt, order, seed, model, edit } = job.params;
  const entry = {
    job: job.id, index, prompt, model, seed, at: (job.timings.created_at ?? 0) * 1000,
    order: typeof order === "string" ? order : "custom", edit: edit?.mode ?? null,
    width: job.model.image_size[1], height: job.model.image_size[0],
  };
  const others = shelf().filter((other) => other.job !== job.id || other.index !== index);
  save([entry, ...others].toSorted((one, other) => other.at - one.at || one.index - other.index).slice(0, MOST));
}

export function forget(entries) {
  const gone = new Set(entries.map(({ job, index }) => `${job}/${index}`));
  save(shelf().filter(({ job, index }) => !gone.has(`${job}/${index}`)));
}

function save(entries) {
  store(NAME, JSON.stringify(entries));
}
