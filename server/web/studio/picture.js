/** The view of one picture, at an address of its own. */

import { copyButton, pictureActions, permalink } from "./downloads.js";
import { button, el } from "./dom.js";
import { icon } from "./icons.js";
import { Job } from "./job.js";
import { explain, Notice } from "./notice.js";
import { optionWords } from "./option_words.js";
import { orderName } from "./orders.js";
import { curlText, recipeText } from "./recipe.js";
import { seconds } from "./status.js";
import { Viewer } from "./viewer.js";

export class PictureView {
  title = "Picture";

  constructor(onRepeat) {
    this.onRepeat = onRepeat;
    this.notice = new Notice();
    this.facts = el("div", { class: "panel facts-panel" });
    this.viewer = new Viewer({
      actions: (job, index) => pictureActions(job, index, (error) => explain(error, null, this.notice)),
      onSelect: (index) => history.replaceState(null, "", permalink(this.viewer.job, index)),
    });
    this.split = el("div", { class: "split" }, this.facts, this.viewer.element);
    this.missing = el("div", { class: "page missing", hidden: true });
    this.element = el("div", {}, this.split, this.missing, this.notice.element);
  }

  async enter([id, place = "0"]) {
    const index = Number.parseInt(place, 10);
    this.notice.hide();
    if (this.viewer.job?.id === id) {
      if (index !== this.viewer.selected) this.viewer.select(index);
      return;
    }
    this.split.hidden = true;
    this.missing.hidden = true;
    try {
      const job = await Job.open(id);
      this.split.hidden = false;
      this.viewer.show(job, { index: job.paintings[index] ? index : 0, atOnce: job.timings.finished_at !== null });
      this.describe(job);
      job.addEventListener("change", () => job.isOver && this.describe(job));
    } catch (error) {
      this.miss(error);
    }
  }

  miss(error) {
    if (!("sentence" in error)) throw error;
    this.missing.hidden = false;
    this.missing.replaceChildren(
      el("h1", { text: error.isGone ? "This picture is no longer here" : "This picture cannot be shown" }),
      el("p", { class: "muted", text: error.sentence }),
      el("a", { class: "button primary", href: "#/", text: "Paint another" }));
  }

  describe(job) {
    const { params } = job;
    const rows = [
      ["Model", params.model], params.frames ? ["Frames", params.frames] : null, ...optionRows(job), ["Seed", params.seed],
      params.edit ? ["Edit", `${params.edit.mode}, ${params.edit.num_kept} tokens kept`] : null,
      job.seconds === null ? null : ["Painted in", seconds(job.seconds)],
    ].filter(Boolean);
    const note = params.edit ? "It was made from a picture, which the request has to carry as well." : "Send it to POST /v1/generations.";
    const isOpen = this.facts.querySelector("details")?.open; // stays so when the job ends meanwhile
    const text = () => recipeText(job, this.viewer.selected);
    const curl = params.edit ? null : copyButton("Copy as curl", () => curlText(job, this.viewer.selected));
    this.facts.replaceChildren(
      el("h1", { class: "prompt-title", text: params.prompt }),
      el("dl", {}, rows.map(([name, value, about]) => el("div", {}, el("dt", { text: name, title: about }), el("dd", { text: String(value) })))),
      el("div", { class: "row" }, button("Paint another like it", { symbol: icon("again"), kind: "solid", on: { click: () => this.onRepeat(params) } })),
      el("details", { class: "more", open: isOpen }, el("summary", { text: "The request as JSON" }),
        el("p", { class: "hint", text: note }), el("pre", { tabindex: "0", text: text() }), el("div", { class: "row" }, copyButton("Copy JSON", text), curl)));
  }
}

/** What was asked, in the words with which the model describes its options; without those that did nothing. */
function optionRows({ params, model }) {
  const acts = ({ name, only }) => params[name] !== undefined && params[name] !== null && (!only || only.slice(1).includes(params[only[0]]));
  return model.options.filter(acts).map((option) => {
    const words = option.kind === "order" ? orderName(params.order) : optionWords(option, params[option.name]);
    return [option.label, words, option.description];
  });
}
