/** The view of all pictures that this browser has asked for. */

import { ApiError, getBlob } from "./api.js";
import { button, el } from "./dom.js";
import { ErrorCode } from "./errors.js";
import { icon } from "./icons.js";
import { forget, storedPictures } from "./gallery_store.js";

const UNFINISHED = ErrorCode.NotFinished;
const WORDS = {
  [UNFINISHED]: "Being painted", [ErrorCode.NoImage]: "Not painted",
  [ErrorCode.JobNotFound]: "Expired", [ErrorCode.JobExpired]: "Expired",
  [ErrorCode.ImageNotFound]: "Expired", [ErrorCode.OutputNotFound]: "Expired",
};

export class GalleryView {
  title = "Gallery";

  constructor() {
    this.gone = [];
    this.pictures = new Map(); // address -> blob URL
    this.grid = el("ul", { class: "gallery" });
    this.count = el("p", { class: "muted" });
    this.tidy = button("Forget expired ones", { symbol: icon("clear"), hidden: true, on: { click: () => this.forgetGone() } });
    this.watcher = new IntersectionObserver((seen) => this.onSeen(seen), { rootMargin: "200px" });
    this.element = el("div", { class: "page" },
      el("div", { class: "page-head" }, el("div", {}, el("h1", { text: "Gallery" }), this.count), this.tidy), this.grid);
  }

  enter() {
    const entries = storedPictures();
    this.gone = [];
    this.tidy.hidden = true;
    this.count.textContent = entries.length
      ? `${entries.length} ${entries.length === 1 ? "picture" : "pictures"} of this browser. The server keeps them for a while.`
      : "What you paint is listed here, in this browser alone.";
    this.watcher.disconnect();
    this.grid.replaceChildren(...entries.map((entry) => this.makeItem(entry)));
    if (!entries.length) this.grid.append(el("li", { class: "nothing" }, el("a", { class: "button primary", href: "#/", text: "Paint the first one" })));
  }

  makeItem(entry) {
    const image = el("img", {
      alt: entry.prompt, width: entry.width, height: entry.height,
      class: entry.isCrisp ? "crisp" : "", draggable: "false",
    });
    const when = new Date(entry.at);
    const item = el("li", {},
      el("a", { href: `#/p/${entry.job}/${entry.index}`, class: "gallery-item" },
        el("span", { class: "frame" }, image),
        el("span", { class: "caption", text: entry.prompt }),
        el("span", { class: "facts" },
          el("span", { text: entry.edit ? `${entry.order}, edited` : entry.order }),
          el("time", { datetime: when.toISOString(), text: ago(when) }))));
    item.entry = entry;
    item.image = image;
    this.watcher.observe(item);
    return item;
  }

  onSeen(seen) {
    for (const { isIntersecting, target } of seen) {
      if (!isIntersecting) continue;
      this.watcher.unobserve(target);
      this.load(target);
    }
  }

  async load(item) {
    const { job, index, isFilm } = item.entry;
    const address = `v1/generations/${job}/${isFilm ? "outputs/video" : "images"}/${index}`;
    try {
      if (!this.pictures.has(address)) this.pictures.set(address, URL.createObjectURL(await getBlob(address)));
      item.image.src = this.pictures.get(address);
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      this.mark(item, error);
    }
  }

  mark(item, error) {
    const word = WORDS[error.code];
    const isGone = word !== undefined && error.code !== UNFINISHED;
    item.classList.add("expired");
    item.image.replaceWith(el("span", { class: "gone", text: word ?? error.sentence }));
    if (!isGone) return;
    this.gone.push(item.entry);
    this.tidy.hidden = false;
  }

  forgetGone() {
    forget(this.gone);
    this.enter();
  }
}

function ago(when) {
  const minutes = Math.round((Date.now() - when) / 60_000);
  if (minutes < 1) return "just now";
  if (minutes < 60) return `${minutes} min ago`;
  if (minutes < 24 * 60) return `${Math.round(minutes / 60)} h ago`;
  return when.toLocaleDateString();
}
