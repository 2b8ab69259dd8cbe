/** One job as this page knows it: what was asked, how far it is, and a painting for each of its pictures. */

import { ApiError, getBlob, getJson, postJson, remove } from "./api.js";
import { canvasOf } from "./film.js";
import { findModel } from "./models.js";
import { forget, remember } from "./gallery_store.js";
import { follow } from "./stream.js";

const GATHER = 30; // milliseconds
const LOOK = 1000; // milliseconds between looks at the place in the queue

export class Job extends EventTarget {
  constructor(status, model, { source = null } = {}) {
    super();
    this.id = status.id;
    this.url = `v1/generations/${encodeURIComponent(status.id)}`;
    this.params = status.params;
    this.warnings = status.warnings ?? [];
    this.model = model;
    this.state = status.status === "queued" ? "queued" : "running";
    this.position = status.position;
    this.eta = status.eta;
    this.timings = status.timings;
    this.seconds = null; // from the start of painting to its end
    this.fault = null;
    this.isLineUp = true;
    this.blobs = [];
    this.telling = null;
    const numGiven = status.params.edit?.num_kept ?? 0;
    this.paintings = Array.from({ length: status.params.n }, () => canvasOf(model, { numGiven, source }));
    this.loading = []; // frames whose pixels are on their way
  }

  /** Submits `body` and follows what comes of it. Throws ApiError. */
  static async submit(path, body, options) {
    const status = await postJson(path, body);
    const job = new Job(status, await findModel(status.params.model), options);
    remember(job);
    return job.start();
  }

  /** A job that exists. Throws ApiError. */
  static async open(id) {
    const status = await getJson(`v1/generations/${encodeURIComponent(id)}`);
    return new Job(status, await findModel(status.params.model)).start();
  }

  get isOver() {
    return ["completed", "failed", "canceled"].includes(this.state);
  }

  get seed() {
    return this.params.seed;
  }

  /** The share of all patches, or frames, that is painted. */
  get progress() {
    const drawn = this.paintings.reduce((sum, painting) => sum + painting.numWritten, 0);
    const total = this.paintings.reduce((sum, painting) => sum + painting.total - painting.numGiven, 0);
    return total ? drawn / total : 1;
  }

  start() {
    this.stop = follow(this.url, {
      onEvent: (event) => this.take(event),
      onLine: (isUp) => this.setLine(isUp),
      onFault: (error) => this.end("failed", error),
    });
    this.lookAtQueue();
    return this;
  }

  async cancel() {
    await remove(this.url);
  }

  take(event) {
    const painting = this.paintings[event.image];
    switch (event.type) {
      case "started":
        this.state = "running";
        break;
      case "patches":
        this.state = "running";
        painting.addStep(event);
        break;
      case "revised":
        painting.revise(event);
        break;
      case "preview":
      case "partial":
        painting.addGuess(event).then(() => this.tell());
        return;
      case "frame":
        this.state = "running";
        this.loading.push(painting.addFrame(event, () => this.fetchFrame(event)).then(() => this.tell()));
        break;
      case "restarted":
        this.paintings.forEach((each, image) => each.keep(event.known[image] ?? 0));
        break;
      case "completed":
        this.complete(event);
        return;
      case "failed":
        this.end("failed", new ApiError({ ...event.error, status: 500 }));
        return;
      case "canceled":
        this.end("canceled");
        return;
      default: // what a newer server may say
    }
    this.tell();
  }

  async complete({ images, outputs = [], seconds }) {
    this.seconds = seconds;
    const videos = outputs.filter(({ kind }) => kind === "video");
    try {
      await Promise.all([...images.map((link) => this.fetchPicture(link)), ...videos.map((link) => this.fetchVideo(link))]);
      await Promise.all(this.loading);
      this.end("completed");
    } catch (error) {
      this.end("failed", error);
    }
  }

  async fetchPicture({ index }) {
    this.blobs[index] = await getBlob(`${this.url}/images/${index}`);
    this.paintings[index].final = await createImageBitmap(this.blobs[index]);
  }

  fetchFrame({ output }) {
    return getBlob(`${this.url}/outputs/frame/${output.index}`);
  }

  async fetchVideo({ index }) {
    this.blobs[index] = await getBlob(`${this.url}/outputs/video/${index}`);
    this.paintings[index].final = await createImageBitmap(this.blobs[index]);
  }

  end(state, fault = null) {
    this.state = state;
    this.fault = fault;
    this.isLineUp = true;
    this.stop?.();
    if (state === "canceled") forget(this.paintings.map((_, index) => ({ job: this.id, index })));
    this.tell();
  }

  setLine(isUp) {
    if (this.isLineUp === isUp) return;
    this.isLineUp = isUp;
    this.tell();
  }

  /** Gathers what comes in quick succession; an end is told at once. */
  tell() {
    if (this.isOver) this.dispatchEvent(new Event("change"));
    this.telling ??= setTimeout(() => {
      this.telling = null;
      this.dispatchEvent(new Event("change"));
    }, GATHER);
  }

  async lookAtQueue() {
    while (this.state === "queued") {
      await new Promise((resolve) => setTimeout(resolve, LOOK));
      if (this.state !== "queued") return;
      try {
        const { position, eta } = await getJson(this.url);
        Object.assign(this, { position, eta });
        if (this.state === "queued") this.tell();
      } catch (error) {
        if (!error.isPassing) return; // the stream tells of it
      }
    }
  }
}
