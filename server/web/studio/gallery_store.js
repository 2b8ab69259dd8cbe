/** The pictures that this browser has asked for: ids and words in localStorage; the pictures stay on the server. */

import { orderName } from "./orders.js";
import { store, stored } from "./storage.js";

const NAME = "oar.shelf";
const MOST = 240;

/** Newest first. */
export function storedPictures() {
  try {
    const entries = JSON.parse(stored(NAME) ?? "[]");
    return Array.isArray(entries) ? entries : [];
  } catch {
    return []; // another page of this host wrote something else there
  }
}

/** All pictures of a job, when it was accepted. */
export function remember(job) {
  const { prompt, order, seed, model, edit } = job.params;
  const entries = job.paintings.map(({ width, height, isCrisp, isFilm }, index) => ({
    job: job.id, index, prompt, model, seed, at: job.timings.created_at * 1000,
    order: isFilm ? "video" : orderName(order), edit: edit?.mode ?? null, width, height, isCrisp, isFilm,
  }));
  const others = storedPictures().filter((other) => other.job !== job.id);
  save([...entries, ...others].slice(0, MOST));
}

export function forget(entries) {
  const gone = new Set(entries.map(({ job, index }) => `${job}/${index}`));
  save(storedPictures().filter(({ job, index }) => !gone.has(`${job}/${index}`)));
}

function save(entries) {
  store(NAME, JSON.stringify(entries));
}
