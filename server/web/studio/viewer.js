/** A job on the wall: its picture as it is painted, the others of the same request, the time slider, the heat maps. */

import { CanvasView } from "./canvas_view.js";
import { HeatMap } from "./heatmap.js";
import { button, el, wantsLessMotion } from "./dom.js";
import { icon } from "./icons.js";
import { budgetWords } from "./painting.js";
import { store, stored } from "./storage.js";
import { StatusLine } from "./status.js";
import { Timeline } from "./timeline.js";

const HEAT = "oar.heat";
const narrow = matchMedia("(max-width: 760px)");

export class Viewer {
  /** `actions(job, index)` makes the buttons under a finished picture; `empty` is shown while there is no job. */
  constructor({ actions = () => [], empty = null, onSelect = () => {} } = {}) {
    this.makeActions = actions;
    this.onSelect = onSelect;
    this.job = null;
    this.selected = 0;
    this.thumbs = [];
    this.view = new CanvasView();
    this.timeline = new Timeline((t, isForward) => this.move(t, isForward));
    this.status = new StatusLine();
    this.maps = [new HeatMap("rank"), new HeatMap("confidence")];
    this.onChange = () => this.update();
    this.build(empty);
  }

  build(empty) {
    this.heatButton = button("Heat maps", {
      symbol: icon("heat"), "aria-pressed": "false", on: { click: () => this.toggleMaps() },
    });
    this.tools = el("div", { class: "row tools" });
    this.strip = el("div", { class: "strip", role: "radiogroup", "aria-label": "Pictures of this request", hidden: true });
    this.side = el("div", { class: "maps", hidden: true }, this.maps.map((map) => map.element));
    this.empty = el("div", { class: "empty" }, empty ?? []);
    this.frame = el("div", { class: "frame" }, this.view.canvas, this.empty);
    this.budget = el("p", { class: "budget", hidden: true });
    this.element = el(
      "section", { class: "viewer", "aria-label": "Picture" },
      el("div", { class: "viewer-head" }, this.status.element, this.heatButton),
      el("div", { class: "viewer-body" }, this.frame, this.side),
      this.budget, this.timeline.element, this.strip, this.tools,
    );
    this.showMaps(wantsMaps());
    this.clear();
  }

  get painting() {
    return this.job?.paintings[this.selected] ?? null;
  }

  showMaps(isShown) {
    this.side.hidden = !isShown;
    this.heatButton.setAttribute("aria-pressed", String(isShown));
    this.move(this.timeline.t, false);
  }

  /** Only what is written patch by patch has maps. */
  offerMaps({ isFilm }) {
    this.heatButton.hidden = isFilm;
    this.side.hidden = isFilm || !wantsMaps();
    this.heatButton.setAttribute("aria-pressed", String(!this.side.hidden));
  }

  toggleMaps() {
    this.showMaps(this.side.hidden);
    store(HEAT, this.side.hidden ? "off" : "on");
  }

  /** The ground that a model paints on, before there is a job. */
  prepare(painting) {
    if (!this.job) this.view.show(painting, 0);
    if (!this.job) this.offerMaps(painting);
    if (!this.job) this.maps.forEach((map) => map.show(painting, 0));
  }

  clear() {
    this.status.set("idle", "Nothing painted yet");
    this.empty.hidden = false;
  }

  /** Shows a job from now on; `index` is the picture to look at first. */
  show(job, { index = 0, atOnce = job.isOver } = {}) {
    this.job?.removeEventListener("change", this.onChange);
    this.job = job;
    this.atOnce = atOnce;
    this.selected = index;
    this.empty.hidden = true;
    this.timeline.reset();
    this.offerMaps(this.painting);
    this.buildStrip();
    this.tools.replaceChildren();
    job.addEventListener("change", this.onChange);
    this.move(0, false);
    this.update();
  }

  /** On a narrow page the controls are under the picture, and so is who presses one. */
  bringIntoView() {
    if (narrow.matches) window.scrollTo({ top: 0, behavior: wantsLessMotion() ? "auto" : "smooth" });
  }

  update() {
    const { job, painting } = this;
    this.status.show(job);
    this.element.dataset.state = job.state;
    const expected = job.isOver ? painting.length : painting.expected(job.params);
    this.timeline.extend(painting.length, expected, { atOnce: this.atOnce });
    this.timeline.stops = job.isOver && painting.isSequence ? painting.moments : null;
    this.move(this.timeline.t, false, true);
    this.thumbs.forEach((thumb, index) => thumb.show(job.paintings[index], job.paintings[index].length));
    if (job.isOver && !this.tools.childElementCount) this.tools.replaceChildren(...this.makeActions(job, this.selected));
  }

  move(t, isForward, keepMarks = false) {
    const { painting } = this;
    if (!painting) return;
    if (keepMarks) this.view.draw();
    else this.view.show(painting, t, { mark: isForward });
    this.view.label = describe(this.job, this.selected, t, painting);
    this.showBudget(painting, t);
    if (!this.side.hidden) this.maps.forEach((map) => map.show(painting, t));
  }

  /** Of a sequence. When it is over, the slider stops where a picture was kept. */
  showBudget(painting, t) {
    this.budget.hidden = !painting.isSequence;
    if (this.budget.hidden) return;
    const { stops } = this.timeline;
    const numKept = stops ? stops.length - 1 : painting.length;
    const kept = numKept < painting.length ? `${numKept} of ${painting.length} steps were kept` : "";
    this.budget.replaceChildren(el("span", { text: budgetWords(painting.budgetAt(t)) }), el("span", { class: "hint", text: kept }));
  }

  // several pictures

  buildStrip() {
    const { paintings } = this.job;
    this.strip.hidden = paintings.length < 2;
    this.thumbs = paintings.length < 2 ? [] : paintings.map((_, index) => new CanvasView({ label: `Picture ${index + 1}` }));
    const buttons = this.thumbs.map((thumb, index) =>
      el("button", {
        type: "button", class: "thumb", role: "radio", "aria-label": `Picture ${index + 1} of ${paintings.length}`,
        "aria-checked": String(index === this.selected), tabindex: index === this.selected ? "0" : "-1",
        on: { click: () => this.select(index), keydown: (event) => this.onStripKey(event) },
      }, thumb.canvas));
    this.strip.replaceChildren(...buttons);
  }

  onStripKey(event) {
    const move = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (!move) return;
    event.preventDefault();
    const count = this.thumbs.length;
    this.select((this.selected + move + count) % count);
    this.strip.children[this.selected].focus();
  }

  select(index) {
    this.selected = index;
    [...this.strip.children].forEach((thumb, each) => {
      thumb.setAttribute("aria-checked", String(each === index));
      thumb.tabIndex = each === index ? 0 : -1;
    });
    const wasAtEnd = this.timeline.isFollowing;
    if (wasAtEnd) this.timeline.t = Math.min(this.timeline.t, this.painting.length);
    this.move(this.timeline.t, false);
    this.tools.replaceChildren();
    this.update();
    this.onSelect(index);
  }
}

/** As it was last time; else where there is room for them. */
function wantsMaps() {
  const choice = stored(HEAT);
  return choice === null ? !narrow.matches : choice === "on";
}

function describe(job, index, t, painting) {
  const which = job.paintings.length > 1 ? `Picture ${index + 1} of ${job.paintings.length}: ` : "";
  const moment = t >= painting.length && painting.isComplete ? "finished" : `after ${painting.isFilm ? "frame" : "step"} ${t}`;
  return `${which}${job.params.prompt}, ${moment}`;
}
