/** The view that paints parts of a picture anew, varies it, or paints around it. */

import { announce } from "./announcer.js";
import { getBlob } from "./api.js";
import { pictureActions } from "./downloads.js";
import { button, el, heading, uniqueId } from "./dom.js";
import { icon } from "./icons.js";
import { Job } from "./job.js";
import { explain, Notice, warn } from "./notice.js";
import { Options } from "./options.js";
import { Retouch } from "./retouch.js";
import { requestForm, RunButton } from "./run.js";
import { storedPictures } from "./gallery_store.js";
import { onFreeKey } from "./shortcuts.js";
import { KINDS, openPicture, toBase64 } from "./upload.js";
import { Viewer } from "./viewer.js";

const NUM_RECENT = 8;
const MODES = { repaint: "Repaint", vary: "Vary", extend: "Extend" };
const ABOUT = {
  repaint: "Marked patches are painted anew from the prompt; all other pixels stay.",
  vary: "A share of the marked patches is drawn anew; without a mark, of the whole picture.",
  extend: "The picture is laid on the canvas, and everything around it is painted.",
};
const ABOUT_WHOLE = "The first tokens stay, which tell the whole picture coarsely; the finer ones are drawn anew.";

export class EditView {
  title = "Edit";

  constructor(models) {
    this.mode = "repaint";
    this.notice = new Notice();
    this.retouch = null;
    this.options = new Options(models, { hasCount: true, onModel: (model) => this.setModel(model) });
    this.retouch = new Retouch(this.options.model, () => this.showCount());
    this.viewer = new Viewer({ actions: (job, index) => this.actions(job, index) });
    this.run = new RunButton("Repaint", { onRun: () => this.submit(), onCancel: () => this.job?.cancel() });
    this.buildPanel();
    this.buildStage();
    this.element = el("div", { class: "split" }, heading(this.title), this.form, this.stage);
    this.setModel(this.options.model);
    this.setSnapping(true);
    this.showStage();
  }

  buildPanel() {
    const group = uniqueId("mode");
    const modes = Object.entries(MODES).map(([mode, label]) =>
      el("label", {}, el("input", {
        type: "radio", name: group, value: mode, props: { checked: mode === this.mode }, on: { change: () => this.setMode(mode) },
      }), el("span", { text: label })));
    this.about = el("p", { class: "hint" });
    this.strength = this.options.controls.slider("strength", "Strength", {
      min: 0.05, max: 1, step: 0.05, format: (value) => this.strengthWords(value),
    });
    this.strength.set(0.5);
    this.strength.input.addEventListener("input", () => this.showCount());
    this.segments = el("div", { class: "segments", role: "radiogroup", "aria-label": "What to do" }, modes);
    this.options.element.prepend(el("div", { class: "stack tight" }, this.segments, this.about, this.strength.field));
    this.form = requestForm("How to edit", this);
  }

  buildStage() {
    this.picker = el("input", {
      type: "file", accept: KINDS.join(","), class: "visually-hidden", "aria-label": "Choose a picture", tabindex: "-1",
      on: { change: () => this.picker.files[0] && this.load(this.picker.files[0]) },
    });
    this.recent = el("div", { class: "recent" });
    this.drop = el("div", { class: "drop" },
      icon("image"), el("p", { text: "Drop a picture here, or paste one." }),
      button("Choose a file", { symbol: icon("upload"), kind: "solid", on: { click: () => this.picker.click() } }),
      this.recent);
    this.count = el("p", { class: "status" });
    const other = button("Other picture", { symbol: icon("image"), on: { click: () => this.reset() } });
    const foot = el("div", { class: "count-row" }, this.count, other);
    this.invitation = el("p", { class: "invitation", "aria-hidden": "true", text: "Brush over what is to change" });
    const frame = el("div", { class: "frame" }, this.retouch.canvas, this.invitation);
    this.toolbar = this.buildToolbar();
    this.editor = el("div", { class: "stack" }, this.toolbar, frame, foot);
    this.stage = el("section", { class: "stage", "aria-label": "Picture to edit" },
      this.picker, this.drop, this.editor, this.viewer.element);
  }

  buildToolbar() {
    const size = el("input", {
      type: "range", min: "0", max: "24", step: "1", class: "short", id: uniqueId("brush"),
      on: { input: () => this.setRadius(Number(size.value)) },
    });
    this.size = size;
    this.brushes = [["brush", "Brush", 1], ["eraser", "Eraser", 0]].map(([symbol, label, value]) =>
      button(label, { symbol: icon(symbol), quiet: true, on: { click: () => this.setBrush(value) } }));
    const snap = el("input", { type: "checkbox", props: { checked: true }, on: { change: () => this.setSnapping(snap.checked) } });
    const steps = [
      ["undo", "Undo", () => this.retouch.mask.undo()], ["invert", "Invert", () => this.retouch.mask.invert()],
      ["clear", "Clear", () => this.retouch.mask.clear()],
    ].map(([symbol, label, act]) => button(label, {
      symbol: icon(symbol), quiet: true, on: { click: () => { act(); this.retouch.change(); } },
    }));
    this.maskTools = el("div", { class: "row" }, ...this.brushes,
      el("label", { class: "inline", for: size.id }, el("span", { text: "Size" }), size), ...steps);
    this.setBrush(1);
    document.addEventListener("keydown", (event) => this.onUndoKey(event));
    onFreeKey(({ key }) => this.onToolKey(key));
    return el("div", { class: "toolbar", role: "toolbar", "aria-label": "Mask" }, this.maskTools,
      el("label", { class: "inline" }, snap, el("span", { text: "Snap to patches" })));
  }

  // from outside

  async enter([id, index = "0"]) {
    if (id) await this.openResult(id, index);
    else if (!this.retouch.picture) this.showRecent();
  }

  async openResult(id, index) {
    if (this.loaded === `${id}/${index}`) return;
    this.loaded = `${id}/${index}`;
    const known = storedPictures().find((entry) => entry.job === id && String(entry.index) === index);
    if (known) this.options.set({ model: known.model, prompt: known.prompt });
    try {
      await this.load(await getBlob(`v1/generations/${id}/images/${index}`));
    } catch (error) {
      this.loaded = null;
      explain(error, null, this.notice);
    }
  }

  async load(blob) {
    this.notice.hide();
    try {
      this.retouch.setPicture(await openPicture(blob));
    } catch (error) {
      this.notice.show(error.message);
      return;
    }
    this.picker.value = "";
    this.showStage("editor");
    announce(this.isWhole ? "The picture is there." : "The picture is there; paint a mask over it.");
  }

  reset() {
    this.retouch.picture = null;
    this.loaded = null;
    history.replaceState(null, "", "#/edit");
    this.showRecent();
    this.showStage();
  }

  onUndoKey(event) {
    if (this.element.hidden || event.key !== "z" || !(event.ctrlKey || event.metaKey)) return;
    if (event.target.matches("input, textarea")) return;
    event.preventDefault();
    this.retouch.mask.undo();
    this.retouch.change();
  }

  onToolKey(key) {
    if (!this.maskTools.checkVisibility()) return;
    if (key === "b" || key === "e") this.setBrush(key === "b" ? 1 : 0);
    else if (key === "[" || key === "]") this.setRadius(this.retouch.radius + (key === "]" ? 1 : -1));
  }

  showRecent() {
    const entries = storedPictures().slice(0, NUM_RECENT);
    const first = el("a", { class: "button solid", href: "#/", text: "Paint one first" });
    this.recent.replaceChildren(...(entries.length ? entries.map((entry) => this.makeRecent(entry)) : [first]));
  }

  makeRecent(entry) {
    const image = el("img", { alt: entry.prompt, class: entry.isCrisp ? "crisp" : "" });
    getBlob(`v1/generations/${entry.job}/images/${entry.index}`).then(
      (blob) => (image.src = URL.createObjectURL(blob)),
      () => image.parentElement?.remove(), // expired: there is nothing to edit
    );
    return el("a", { href: `#/edit/${entry.job}/${entry.index}`, title: entry.prompt }, image);
  }

  // what is set

  /** A model that can keep no part of a picture varies whole ones, and has no brush. */
  setModel(model) {
    if (!this.retouch) return; // the page is being made
    this.isWhole = !model.can_edit;
    this.retouch.isFixed = this.isWhole;
    this.retouch.setModel(model);
    this.segments.hidden = this.isWhole;
    this.toolbar.hidden = this.isWhole;
    this.segments.querySelectorAll("input").forEach((input) => (input.checked = input.value === this.mode));
    this.setMode(this.isWhole ? "vary" : this.mode);
    this.strength.render();
  }

  /** Of a sequence, how many of its first tokens stay. */
  strengthWords(value) {
    const share = `${Math.round(value * 100)} % drawn anew`;
    return this.isWhole ? `${this.numKept(value)} of ${this.options.model.num_tokens} tokens stay` : share;
  }

  /** Whole groups, of which all but a share `strength` of the tokens would stay. */
  numKept(strength) {
    const { layout, num_tokens: total } = this.options.model;
    const most = total - Math.max(1, Math.round(strength * total));
    let end = 0;
    const ends = layout.shape.map((size) => (end += size));
    return ends.findLast((each) => each <= most) ?? 0;
  }

  strengthAsked() {
    const value = Number(this.strength.input.value);
    return this.isWhole ? 1 - this.numKept(value) / this.options.model.num_tokens : value;
  }

  setMode(mode) {
    this.mode = mode;
    this.about.textContent = this.isWhole ? ABOUT_WHOLE : ABOUT[mode];
    this.strength.field.hidden = mode !== "vary";
    this.maskTools.hidden = mode === "extend";
    this.run.label = MODES[mode];
    this.run.running = this.run.isRunning;
    this.retouch.setExtending(mode === "extend");
    this.retouch.change();
  }

  setBrush(value) {
    this.retouch.value = value;
    this.brushes.forEach((brush, index) => brush.setAttribute("aria-pressed", String(value === 1 - index)));
  }

  setRadius(radius) {
    this.size.value = String(radius); // within its bounds
    this.retouch.radius = Number(this.size.value);
    this.retouch.draw();
  }

  setSnapping(snaps) {
    this.retouch.mask.snaps = snaps;
    this.size.value = String(this.retouch.radius);
  }

  showCount() {
    const { mask } = this.retouch;
    const total = mask.rows * mask.columns;
    const count = mask.patches().length;
    this.invitation.hidden = this.mode !== "repaint" || count > 0;
    const verb = this.mode === "extend" ? "painted" : "rewritten";
    if (this.isWhole) this.count.textContent = `${this.numKept(Number(this.strength.input.value))} of ${total} tokens stay`;
    else if (count) this.count.textContent = `${count} of ${total} patches will be ${verb}`;
    else this.count.textContent = this.mode === "vary" ? `All ${total} patches may change` : "No patch is marked yet";
  }

  showStage(part = null) {
    this.drop.hidden = part !== null;
    this.editor.hidden = part !== "editor";
    this.viewer.element.hidden = part !== "viewer";
  }

  // the request

  async submit() {
    this.notice.hide();
    this.options.clearFaults();
    if (!this.retouch.picture) {
      this.notice.show("Choose a picture first.");
      return;
    }
    if (this.mode === "repaint" && this.retouch.mask.isEmpty) {
      this.notice.show("Brush over what is to change first.");
      return;
    }
    this.run.running = true;
    try {
      this.job = await Job.submit("v1/edits", await this.body(), { source: this.retouch.composed() });
      this.job.addEventListener("change", () => (this.run.running = !this.job.isOver));
      this.showStage("viewer");
      warn(this.job, this.notice);
      this.options.offerSeed(this.job.seed);
      this.viewer.show(this.job);
      this.viewer.bringIntoView();
    } catch (error) {
      this.run.running = false;
      explain(error, this.options, this.notice);
    }
  }

  async body() {
    const { retouch, mode } = this;
    const body = { ...this.options.values(), image: await toBase64(retouch.source) };
    if (mode === "extend") return { ...body, offset: [retouch.offset.y, retouch.offset.x] };
    if (mode === "repaint" || !retouch.mask.isEmpty) body.mask = await toBase64(retouch.mask.toCanvas());
    return mode === "vary" ? { ...body, strength: this.strengthAsked() } : body;
  }

  actions(job, index) {
    const back = button(this.isWhole ? "Back" : "Back to the mask", { symbol: icon("undo"), kind: "solid", on: { click: () => this.showStage("editor") } });
    return [back, ...pictureActions(job, index, (error) => explain(error, null, this.notice))];
  }
}
