/** The view that paints one prompt with one seed along several orders at once, or beside another way to write. */

import { announce } from "./announcer.js";
import { comparison, copyButton, permalink } from "./downloads.js";
import { CanvasView } from "./canvas_view.js";
import { el, heading } from "./dom.js";
import { HeatMap } from "./heatmap.js";
import { orderIcon } from "./icons.js";
import { Job } from "./job.js";
import { isSequence, numKept } from "./models.js";
import { explain, Notice, warn } from "./notice.js";
import { Options, randomSeed, rivalName } from "./options.js";
import { COARSE, contrasting, orderName, orderWords } from "./orders.js";
import { budgetWords, Painting } from "./painting.js";
import { requestForm, RunButton } from "./run.js";
import { seconds, StatusLine } from "./status.js";
import { Timeline } from "./timeline.js";

const [FEWEST, MOST] = [2, 4];

export class CompareView {
  title = "Compare";

  constructor(models) {
    this.cards = [];
    this.address = null; // of the comparison on the wall, once it has one
    this.notice = new Notice();
    this.options = new Options(models, { orders: "several", hasCount: false, onModel: () => this.preview() });
    this.run = new RunButton("Paint them", { onRun: () => this.submit(), onCancel: () => this.cancel() });
    this.form = requestForm("What to compare", this);
    this.timeline = new Timeline((t, isForward) => this.move(t, isForward));
    this.wall = el("div", { class: "wall" });
    this.tools = el("div", { class: "row tools", hidden: true }, copyButton("Link", () => new URL(this.address, location.href).href));
    const stage = el("section", { class: "comparison", "aria-label": "Comparison" }, this.wall, this.timeline.element, this.tools);
    this.element = el("div", { class: "split" }, heading(this.title), this.form, stage);
    this.form.addEventListener("change", (event) => event.target.type === "checkbox" && this.onOrders());
    this.preview();
  }

  get isRunning() {
    return this.cards.some((card) => card.job && !card.job.isOver);
  }

  onOrders() {
    this.options.controls.clearFault("order");
    if (!this.isRunning) this.preview();
  }

  /** A canvas for each order that is ticked; what is painted in one of them stays. */
  preview() {
    if (!this.options || !this.wall) return;
    const cards = this.options.chosenOrders.slice(0, MOST).map((order) => {
      const fresh = this.card(order);
      return this.cards.find((card) => card.job?.model === fresh.model && card.order === order) ?? fresh;
    });
    this.hang(cards);
    if (!cards.some(({ job }) => job)) this.timeline.reset();
  }

  /** `order` is the value of a tile. */
  card(order, model = this.options.rivalNamed(order) ?? this.options.model) {
    return new Card(order, model, () => this.update());
  }

  hang(cards) {
    this.cards.filter((card) => !cards.includes(card)).forEach((card) => card.leave());
    this.cards = cards;
    this.wall.replaceChildren(...cards.map((card) => card.element));
    this.wall.dataset.count = String(cards.length);
  }

  /** The jobs of a comparison by their ids; one alone is what others are to be compared with. */
  async enter(ids) {
    const address = comparison(ids.map((id) => ({ id })));
    if (!ids.length && this.address) history.replaceState(null, "", this.address);
    if (!ids.length || address === this.address) return;
    this.address = address;
    this.notice.hide();
    const outcomes = await Promise.allSettled(ids.slice(0, MOST).map((id) => Job.open(id)));
    const jobs = outcomes.map(({ value }) => value);
    if (this.address === address) this.reopen(jobs.filter(Boolean), outcomes);
    else jobs.forEach((job) => job?.stop());
  }

  reopen(jobs, outcomes) {
    if (jobs.length) this.showChoice(jobs, outcomes.length > 1);
    this.timeline.reset();
    const cards = outcomes.map(({ value: job, reason }) => {
      const card = job ? this.card(orderName(choiceOf(job)), job.model) : this.card("");
      if (job) card.take(job);
      else card.miss(reason);
      return card;
    });
    const known = cards.map(({ order }) => order);
    const others = outcomes.length > 1 ? [] : this.options.chosenOrders.filter((order) => !known.includes(order));
    this.hang([...cards, ...others.map((order) => this.card(order))]);
    this.tools.hidden = jobs.length < FEWEST;
    const numGone = outcomes.filter(({ reason }) => reason?.isGone).length;
    if (numGone) this.notice.show(missing(numGone, outcomes.length));
    this.update();
  }

  /** The form as it was for these jobs. Of one alone: with what it is to be compared with. */
  showChoice(jobs, isWhole) {
    const ofOrders = jobs.find(({ model }) => !isSequence(model));
    if (ofOrders) this.options.set(ofOrders.params);
    else this.options.meet(jobs[0]);
    const choices = jobs.map(choiceOf);
    this.options.showOrders(isWhole ? choices : contrasting(choices[0], this.options.model));
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
    body.seed ??= randomSeed();
    this.hang(orders.map((order) => this.card(order)));
    this.timeline.reset();
    this.run.running = true;
    announce(`Sent, ${orders.length} orders`);
    const outcomes = await Promise.allSettled(this.cards.map((card) => card.submit(body, this.options.orderNamed(card.order))));
    const refusal = outcomes.find(({ status }) => status === "rejected");
    if (refusal) {
      await this.refuse(refusal.reason);
    } else {
      warn(this.cards[0].job, this.notice);
      this.name();
    }
    this.update();
  }

  /** From now on the address shows this comparison again. */
  name() {
    this.address = comparison(this.cards.map(({ job }) => job));
    if (!this.element.hidden) history.replaceState(null, "", this.address);
    this.tools.hidden = false;
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

/** The tile that a job was painted for. */
function choiceOf({ params, model }) {
  return isSequence(model) ? rivalName(model) : params.order;
}

/** One order's picture, or that of a model which has none to choose. */
class Card {
  constructor(order, model, onChange) {
    this.order = order;
    this.model = model;
    this.onChange = onChange;
    this.job = null;
    this.painting = new Painting(model);
    const isRival = order !== "" && isSequence(model);
    const way = isRival ? COARSE : order;
    this.view = new CanvasView({ label: order ? `Painted ${isRival ? `${way} by ${model.id}` : `in ${way} order`}` : "No picture" });
    this.map = new HeatMap("rank");
    this.status = new StatusLine();
    this.status.set("idle", "Not painted yet");
    this.words = el("p", { class: "hint", text: orderWords(way) });
    this.link = el("a", { class: "quiet-link", text: "Details", hidden: true });
    const name = (isRival ? model.id : order) || "No longer here";
    this.element = el("article", { class: "card", "aria-label": name },
      el("header", {}, el("h2", {}, order ? orderIcon(way) : null, el("span", { text: name })), this.link),
      this.words,
      el("div", { class: "frame" }, this.view.canvas), this.status.element, this.map.element);
    this.show(0, false);
  }

  /** A model of sequences keeps its own settings: `body` is in the words of another. */
  async submit(body, order) {
    const { prompt, seed } = body;
    const own = { model: this.model.id, prompt, seed, kept_previews: numKept(this.model) };
    this.take(await Job.submit("v1/generations", isSequence(this.model) ? own : { ...body, order }));
  }

  take(job) {
    this.job = job;
    [this.painting] = job.paintings;
    job.addEventListener("change", this.onChange);
    this.show(0, false);
  }

  miss(error) {
    if (!("sentence" in error)) throw error;
    this.map.element.hidden = true;
    this.status.set("failed", error.isGone ? "Expired: the server keeps pictures for a while." : error.sentence);
  }

  leave() {
    this.job?.removeEventListener("change", this.onChange);
    if (this.job && !this.job.isOver) this.job.stop();
  }

  show(t, isForward) {
    const moment = Math.min(t, this.painting.length);
    this.view.show(this.painting, moment, { mark: isForward && moment === t });
    this.map.show(this.painting, moment);
    if (this.painting.isSequence && moment) this.words.textContent = budgetWords(this.painting.budgetAt(moment));
  }

  refresh() {
    this.status.show(this.job);
    if (this.job.state === "completed") {
      const steps = `${this.painting.length} ${this.painting.length === 1 ? "step" : "steps"}`;
      this.status.set("completed", `${steps}, ${seconds(this.job.seconds)}`);
      this.link.href = permalink(this.job, 0);
      this.link.hidden = false;
    }
    this.view.draw();
  }
}

function missing(count, total) {
  if (count === total) return "This comparison has expired: the server keeps pictures for a while.";
  return `${count} of these ${total} pictures ${count === 1 ? "has" : "have"} expired.`;
}
