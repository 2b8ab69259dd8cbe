/** The view that paints one prompt with one seed along several orders at once. */

import { announce } from "./announcer.js";
import { Easel } from "./easel.js";
import { el } from "./dom.js";
import { HeatMap } from "./heatmap.js";
import { orderIcon } from "./icons.js";
import { Job } from "./job.js";
import { explain, Notice } from "./notice.js";
import { Options } from "./options.js";
import { Painting } from "./painting.js";
import { permalink } from "./downloads.js";
import { RunButton, runOnEnter } from "./run.js";
import { seconds, StatusLine } from "./status.js";
import { Timeline } from "./timeline.js";

const [FEWEST, MOST] = [2, 4];

export class CompareView {
  title = "Compare";

  constructor(models) {
    this.cards = [];
    this.notice = new Notice();
    this.options = new Options(models, { orders: "several", hasCount: false, onModel: () => this.preview() });
    this.run = new RunButton("Paint them", { onRun: () => this.submit(), onCancel: () => this.cancel() });
    this.form = el("form", { class: "panel", novalidate: true, "aria-label": "What to compare" },
      this.options.element, el("div", { class: "panel-foot" }, this.notice.element, this.run.element));
    runOnEnter(this.form, this.run);
    this.timeline = new Timeline((t, isForward) => this.move(t, isForward));
    this.wall = el("div", { class: "wall" });
    const stage = el("section", { class: "comparison", "aria-label": "Comparison" }, this.wall, this.timeline.element);
    this.element = el("div", { class: "split" }, this.form, stage);
    this.form.addEventListener("change", (event) => event.target.type === "checkbox" && this.onOrders());
    this.preview();
  }

  get isRunning() {
    return this.cards.some((card) => card.job && !card.job.isOver);
  }

  onOrders() {
    this.options.clearFault("order");
    if (!this.isRunning) this.preview();
  }

  /** Empty canvases, one for each order that is ticked. */
  preview() {
    if (!this.options || !this.wall) return;
    this.hang(this.options.chosenOrders.slice(0, MOST));
    this.timeline.reset();
  }

  hang(orders) {
    this.cards.forEach((card) => card.leave());
    this.cards = orders.map((order) => new Card(order, this.options.model, () => this.update()));
    this.wall.replaceChildren(...this.cards.map((card) => card.element));
    this.wall.dataset.count = String(orders.length);
  }

  async submit() {
    this.notice.hide();
    this.options.clearFaults();
    const orders = this.options.chosenOrders;
    if (orders.length < FEWEST || orders.length > MOST) {
      this.options.fail({ field: "order", sentence: `Tick ${FEWEST} to ${MOST} orders; ${orders.length} are ticked.` });
      return;
    }
    const body = this.options.values();
    if (body.seed === undefined) body.seed = Number(this.options.rollSeed());
    this.hang(orders);
    this.timeline.reset();
    this.run.running = true;
    announce(`Sent, ${orders.length} orders`);
    const outcomes = await Promise.allSettled(this.cards.map((card) => card.submit(body)));
    const refusal = outcomes.find(({ status }) => status === "rejected");
    if (refusal) await this.refuse(refusal.reason);
    this.update();
  }

  /** One that is refused ends all: half a comparison says nothing. */
  async refuse(error) {
    await this.cancel();
    explain(error, this.options, this.notice);
  }

  async cancel() {
    const running = this.cards.filter(({ job }) => job && !job.isOver);
    await Promise.allSettled(running.map(({ job }) => job.cancel()));
  }

  update() {
    const known = this.cards.filter(({ job }) => job);
    this.run.running = this.isRunning;
    if (!known.length) return;
    const lengths = known.map(({ painting }) => painting.length);
    const expected = known.map(({ job, painting }) => (job.isOver ? painting.length : Math.max(painting.numSteps, job.params.steps)));
    this.timeline.extend(Math.max(...lengths), Math.max(...expected));
    known.forEach((card) => card.refresh());
  }

  move(t, isForward) {
    this.cards.forEach((card) => card.show(t, isForward));
  }
}

/** One order's picture. */
class Card {
  constructor(order, model, onChange) {
    this.order = order;
    this.onChange = onChange;
    this.job = null;
    this.painting = new Painting(model);
    this.easel = new Easel({ label: `Painted in ${order} order` });
    this.map = new HeatMap("rank");
    this.status = new StatusLine();
    this.status.set("idle", "Not painted yet");
    this.link = el("a", { class: "quiet-link", text: "Details", hidden: true });
    this.element = el("article", { class: "card", "aria-label": order },
      el("header", {}, el("h2", {}, orderIcon(order), el("span", { text: order })), this.link),
      el("div", { class: "frame" }, this.easel.canvas), this.status.element, this.map.element);
    this.show(0, false);
  }

  async submit(body) {
    this.job = await Job.submit("/v1/generations", { ...body, order: this.order });
    [this.painting] = this.job.paintings;
    this.job.addEventListener("change", this.onChange);
    this.show(0, false);
  }

  leave() {
    this.job?.removeEventListener("change", this.onChange);
    if (this.job && !this.job.isOver) this.job.stop();
  }

  show(t, isForward) {
    const moment = Math.min(t, this.painting.length);
    this.easel.show(this.painting, moment, { mark: isForward && moment === t });
    this.map.show(this.painting, moment);
  }

  refresh() {
    this.status.show(this.job);
    if (this.job.state === "completed") {
      const steps = `${this.painting.length} ${this.painting.length === 1 ? "step" : "steps"}`;
      this.status.set("completed", `${steps}, ${seconds(this.job.seconds)}`);
      this.link.href = permalink(this.job, 0);
      this.link.hidden = false;
    }
    this.easel.draw();
  }
}
