/** The view that makes pictures from a prompt. */

import { announce } from "./announcer.js";
import { pictureActions } from "./downloads.js";
import { el, heading } from "./dom.js";
import { canvasOf } from "./film.js";
import { Job } from "./job.js";
import { explain, Notice, warn } from "./notice.js";
import { Options } from "./options.js";
import { requestForm, RunButton } from "./run.js";
import { Viewer } from "./viewer.js";

export class CreateView {
  title = "Create";

  constructor(models) {
    this.notice = new Notice();
    this.invitation = el("p");
    this.viewer = new Viewer({
      actions: (job, index) => pictureActions(job, index, (error) => explain(error, null, this.notice)),
      empty: this.invitation,
    });
    this.options = new Options(models, { onModel: (model) => this.prepare(model) });
    this.run = new RunButton("Paint", { onRun: () => this.submit(), onCancel: () => this.cancel() });
    this.form = requestForm("What to paint", this);
    this.element = el("div", { class: "split" }, heading(this.title), this.form, this.viewer.element);
  }

  prepare(model) {
    const canvas = canvasOf(model);
    this.viewer.prepare(canvas);
    this.invitation.textContent = `Press Paint and watch: ${howItComes(model, canvas)}.`;
  }

  /** From the details of a picture: paint such a one again. */
  repeat(params) {
    this.options.set(params);
  }

  async submit() {
    this.notice.hide();
    this.options.clearFaults();
    this.run.running = true;
    announce("Sent");
    try {
      this.job = await Job.submit("v1/generations", this.options.values());
      this.job.addEventListener("change", () => (this.run.running = !this.job.isOver));
      warn(this.job, this.notice);
      this.options.offerSeed(this.job.seed);
      this.showClass(this.job.params.drawn_class);
      this.viewer.show(this.job);
      this.viewer.bringIntoView();
    } catch (error) {
      this.run.running = false;
      explain(error, this.options, this.notice);
    }
  }

  /** Says which class is painted where the words named none. */
  showClass(drawn) {
    if (!drawn || drawn.is_exact) return;
    this.options.offerClass(drawn);
    this.notice.show(`No class has that name: this is the nearest, “${drawn.name}”.`, { isMild: true });
  }

  async cancel() {
    try {
      await this.job?.cancel();
    } catch (error) {
      explain(error, null, this.notice);
    }
  }
}

function howItComes({ orders }, { isFilm, isSequence }) {
  if (isFilm) return "it comes frame by frame";
  if (isSequence) return "it comes from coarse to fine";
  return orders.length > 1 ? "it comes patch by patch, in the order that you choose" : "it comes patch by patch";
}
