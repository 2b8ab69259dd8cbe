/** The controls of a request: everything that they offer comes from what the models say of themselves. */

import { el, button, setAttributes, uniqueId } from "./dom.js";
import { icon, orderIcon } from "./icons.js";
import { contrasting, CUSTOM, orderName, orderWords, SHORTLIST } from "./orders.js";
import { store, stored } from "./storage.js";

const PROMPT = "oar.prompt"; // what stood in a form last
const SEED_BITS = 31;
const MOST_PICTURES = 16;

const GROUP_WORDS = {
  cosine: "few at first, many at the end", linear: "a few more each step", constant: "the same each step",
  adaptive: "as many as are safe together",
};
const SCHEDULES = [["constant", "constant"], ["linear", "linear, growing"], ["cosine", "cosine, growing"]];
const ABOUT = {
  steps: "Fewer steps are faster; more patches are written at once then.",
  candidates: "How many patches of its list the model is asked about, for each that a step writes.",
  guidance: "How closely the picture keeps to the prompt.",
  guidance_schedule: "Whether guidance has its full strength from the first patch, or grows towards it.",
  guidance_interval: "Share of the picture that is drawn before guidance begins.",
  guidance_until: "Share of the picture after which guidance ends.",
  temperature: "Above 1 draws are freer, below 1 surer.",
  top_p: "Only the likeliest tokens that sum up to this are drawn.",
  top_k: "Only so many of the likeliest tokens are drawn; 0 is all.",
  seed: "The same seed and settings make the same picture.",
};

export class Options {
  /** `orders` is "one" or "several"; without `hasCount` one picture is made. */
  constructor(models, { orders = "one", hasCount = true, onModel = () => {} } = {}) {
    this.models = models;
    this.model = models[0];
    this.orders = orders;
    this.custom = null; // the positions of an order that has no name
    this.onModel = onModel;
    this.controls = new Map(); // field -> { input, fault }
    this.element = el("div", { class: "options" });
    this.build(hasCount);
    this.prompt.input.value = stored(PROMPT) ?? "";
    this.prompt.input.addEventListener("input", () => store(PROMPT, this.prompt.input.value));
    this.setModel(this.model.id);
  }

  build(hasCount) {
    this.modelSelect = this.select("model", "Model", this.models.map(({ id }) => [id, id]));
    this.modelSelect.input.addEventListener("change", () => this.setModel(this.modelSelect.input.value));
    this.prompt = this.area("prompt", "Prompt", "What the picture shows");
    this.chips = el("div", { class: "chips", role: "group", "aria-label": "Examples" });
    this.orderTiles = el("div", { class: "tiles", on: { change: () => this.showOrderWords() } });
    this.orderHint = el("p", { class: "hint", id: uniqueId("order-hint"), "aria-live": "polite", hidden: this.orders === "several" });
    this.orderField = this.fieldset("order", this.orders === "several" ? "Orders, two to four" : "Order", this.orderTiles, this.orderHint);
    this.steps = this.slider("steps", "Steps", { min: 1, max: 1, step: 1, format: (value) => this.stepWords(value) });
    this.groups = this.select("group_sizes", "Group sizes", []);
    this.groups.input.addEventListener("change", () => this.showGroups());
    this.groupHint = el("p", { class: "hint" });
    this.candidates = this.slider("candidates", "Candidates", { min: 1, max: 16, step: 1, format: (v) => `${v} for each patch` });
    this.bound = this.slider("entropy_bound", "Entropy bound", { min: 0, max: 20, step: 0.5, format: (v) => `${v} nats` });
    this.guidance = this.slider("guidance", "Guidance", {
      min: 1, max: 8, step: 0.25, format: (value) => (value === 1 ? "off" : value.toFixed(2)),
    });
    this.schedule = this.select("guidance_schedule", "Guidance schedule", SCHEDULES);
    const share = { min: 0, max: 1, step: 0.01, format: (value) => `${Math.round(100 * value)} %` };
    this.from = this.slider("guidance_interval", "Guidance from", share);
    this.until = this.slider("guidance_until", "Guidance until", share);
    this.temperature = this.slider("temperature", "Temperature", { min: 0, max: 2, step: 0.05, format: (v) => v.toFixed(2) });
    this.topP = this.slider("top_p", "Top-p", { min: 0.05, max: 1, step: 0.01, format: (value) => value.toFixed(2) });
    this.topK = this.number("top_k", "Top-k", { min: 0, max: 1 << 30, placeholder: "0 is all" });
    this.seed = this.seedField();
    this.count = hasCount ? this.number("n", "Pictures", { min: 1, max: MOST_PICTURES, value: 1 }) : null;
    this.lay();
  }

  lay() {
    const pair = el("div", { class: "pair" }, this.seed.field, this.count?.field ?? null);
    this.more = el("details", { class: "more" },
      el("summary", { text: "Sampling" }),
      el("div", { class: "stack" },
        this.groups.field, this.groupHint, this.bound.field, this.schedule.field, this.from.field, this.until.field,
        this.temperature.field, this.topP.field, this.topK.field));
    this.element.append(...[
      this.modelSelect.field, this.prompt.field, this.chips, this.orderField.field, this.steps.field,
      this.candidates.field, this.guidance.field, pair, this.more,
    ]);
  }

  // the controls

  field(name, label, input, ...extras) {
    const id = input.id || uniqueId(name);
    const fault = el("p", { class: "fault", id: `${id}-fault`, hidden: true });
    setAttributes(input, { id, name, title: ABOUT[name] });
    const field = el("div", { class: "field" }, el("div", { class: "field-head" }, el("label", { for: id, text: label }), ...extras), input, fault);
    const control = { field, input, fault };
    this.controls.set(name, control);
    return control;
  }

  fieldset(name, label, ...content) {
    const fault = el("p", { class: "fault", id: uniqueId(`${name}-fault`), hidden: true });
    const field = el("fieldset", { class: "field" }, el("legend", { text: label }), content, fault);
    const control = { field, input: field, fault };
    this.controls.set(name, control);
    return control;
  }

  select(name, label, choices) {
    const control = this.field(name, label, el("select", {}));
    fill(control.input, choices);
    return control;
  }

  area(name, label, placeholder) {
    return this.field(name, label, el("textarea", { rows: "3", placeholder, spellcheck: "false" }));
  }

  number(name, label, { min, max, value = "", placeholder = "" }) {
    return this.field(name, label, el("input", { type: "number", inputmode: "numeric", min, max, step: "1", value, placeholder }));
  }

  slider(name, label, { min, max, step, format }) {
    const id = uniqueId(name);
    const output = el("output", { for: id });
    const control = this.field(name, label, el("input", { type: "range", id, min, max, step }), output);
    control.render = () => {
      const value = Number(control.input.value);
      const share = (value - control.input.min) / Math.max(1e-9, control.input.max - control.input.min);
      output.textContent = format(value);
      control.input.setAttribute("aria-valuetext", format(value));
      control.input.style.setProperty("--share", `${100 * share}%`);
    };
    control.set = (value) => {
      control.input.value = String(value);
      control.render();
    };
    control.input.addEventListener("input", control.render);
    return control;
  }

  seedField() {
    const input = el("input", { type: "text", inputmode: "numeric", pattern: "[0-9]*", placeholder: "random", autocomplete: "off" });
    this.seedAgain = el("button", { type: "button", class: "again", title: "Use this seed again", hidden: true });
    this.seedAgain.addEventListener("click", () => this.setSeed(this.lastSeed));
    const control = this.field("seed", "Seed", input, this.seedAgain);
    const roll = button("Roll a seed", { symbol: icon("dice"), quiet: true, on: { click: () => this.rollSeed() } });
    const holder = el("div", { class: "with-button" });
    input.replaceWith(holder);
    holder.append(input, roll);
    return control;
  }

  rollSeed() {
    this.setSeed(randomSeed());
  }

  /** The seed of a job, which the server may have chosen. */
  offerSeed(seed) {
    this.lastSeed = seed;
    this.seedAgain.textContent = `last: ${seed}`;
    this.seedAgain.hidden = this.seed.input.value === String(seed);
  }

  setSeed(seed) {
    this.seed.input.value = String(seed);
    this.seedAgain.hidden = true;
    this.clearFault("seed");
  }

  // a model's own choices

  setModel(name) {
    const model = this.models.find(({ id }) => id === name);
    if (!model) return;
    const { defaults } = model;
    this.model = model;
    this.modelSelect.input.value = name;
    this.showExamples();
    this.offerExample();
    if (this.custom?.length !== model.num_tokens) this.custom = null;
    this.showOrders(this.orders === "several" ? contrasting(defaults.order, model) : [defaults.order]);
    this.steps.input.max = String(model.num_tokens);
    this.steps.set(defaults.steps);
    fill(this.groups.input, model.group_sizes.map((group) => [group, group]));
    this.groups.input.value = defaults.group_sizes;
    this.bound.set(defaults.entropy_bound);
    this.candidates.set(defaults.candidates);
    this.guidance.set(defaults.guidance);
    this.setSchedule(defaults);
    this.temperature.set(defaults.temperature);
    this.topP.set(defaults.top_p);
    this.topK.input.value = String(defaults.top_k);
    this.showGroups();
    this.onModel(model);
  }

  showExamples() {
    this.chips.replaceChildren(...this.model.example_prompts.map((text) =>
      el("button", { type: "button", class: "chip", title: text, text, on: { click: () => this.setPrompt(text) } })));
    this.chips.hidden = !this.model.example_prompts.length;
  }

  /** In place of nothing, and of another model's example: one click paints. What the reader typed stays. */
  offerExample() {
    const text = this.prompt.input.value;
    const [first] = this.model.example_prompts;
    const isOurs = text.trim() === "" || this.models.some((model) => model.example_prompts.includes(text));
    if (first !== undefined && isOurs && !this.model.example_prompts.includes(text)) this.setPrompt(first);
  }

  setPrompt(text) {
    this.prompt.input.value = text;
    this.clearFault("prompt");
    this.prompt.input.dispatchEvent(new Event("input", { bubbles: true }));
  }

  /** Ticks what is `chosen`: names, or a list of positions. What the model does not know is left out. */
  showOrders(chosen) {
    this.custom = chosen.find(Array.isArray) ?? this.custom;
    const ticked = chosen.map(orderName);
    const group = uniqueId("order");
    const type = this.orders === "several" ? "checkbox" : "radio";
    const names = this.custom ? [...this.model.orders, CUSTOM] : this.model.orders;
    this.orderTiles.replaceChildren(...names.map((order) => {
      const input = el("input", { type, name: group, value: order, props: { checked: ticked.includes(order) } });
      return el("label", { class: "tile", title: orderWords(order) }, input, orderIcon(order), el("span", { text: order }));
    }));
    this.showOrderWords();
  }

  showOrderWords() {
    this.candidates.field.hidden = !this.chosenOrders.includes(SHORTLIST);
    this.orderHint.textContent = this.orders === "one" ? orderWords(this.chosenOrders[0]) : "";
  }

  stepWords(value) {
    const tokens = this.model.num_tokens;
    if (value === tokens) return `${value}, a patch each`;
    return `${value} for ${tokens} patches`;
  }

  showGroups() {
    const name = this.groups.input.value;
    this.groupHint.textContent = GROUP_WORDS[name] ?? "";
    this.bound.field.hidden = name !== "adaptive";
  }

  // the request

  /** The names of the ticked orders. */
  get chosenOrders() {
    return [...this.orderTiles.querySelectorAll("input:checked")].map((input) => input.value);
  }

  /** What a request says for an order: its name, or the positions. */
  orderNamed(name) {
    return name === CUSTOM ? this.custom : name;
  }

  /** The body of `POST /v1/generations`, without an order where several are chosen. */
  values() {
    const seed = this.seed.input.value.trim();
    const body = {
      model: this.model.id,
      prompt: this.prompt.input.value,
      steps: Number(this.steps.input.value),
      group_sizes: this.groups.input.value,
      guidance: Number(this.guidance.input.value),
      guidance_interval: [Number(this.from.input.value), Number(this.until.input.value)],
      guidance_schedule: this.schedule.input.value,
      temperature: Number(this.temperature.input.value),
      top_p: Number(this.topP.input.value),
      top_k: Number(this.topK.input.value || 0),
    };
    if (seed !== "") body.seed = seed.length < 16 && /^\d+$/.test(seed) ? Number(seed) : seed;
    if (this.count) body.n = Number(this.count.input.value || 1);
    if (body.group_sizes === "adaptive") body.entropy_bound = Number(this.bound.input.value);
    if (this.chosenOrders.includes(SHORTLIST)) body.candidates = Number(this.candidates.input.value);
    if (this.orders === "one") body.order = this.orderNamed(this.chosenOrders[0]);
    return body;
  }

  /** Fills in what made a picture; what the model does not know is left as it is. */
  set(params) {
    if (params.model) this.setModel(params.model);
    this.setPrompt(params.prompt ?? this.prompt.input.value);
    for (const [control, name] of [
      [this.steps, "steps"], [this.guidance, "guidance"], [this.temperature, "temperature"], [this.topP, "top_p"],
      [this.bound, "entropy_bound"], [this.candidates, "candidates"],
    ]) if (params[name] !== undefined) control.set(params[name]);
    this.setSchedule(params);
    if (params.group_sizes) this.groups.input.value = params.group_sizes;
    if (params.top_k !== undefined) this.topK.input.value = String(params.top_k);
    if (params.seed !== undefined) this.seed.input.value = String(params.seed);
    if (this.count && params.n !== undefined) this.count.input.value = String(params.n);
    if (this.orders === "one" && this.knows(params.order)) this.showOrders([params.order]);
    this.showGroups();
  }

  setSchedule({ guidance_schedule: schedule, guidance_interval: interval }) {
    if (schedule) this.schedule.input.value = schedule;
    if (!interval) return;
    this.from.set(interval[0]);
    this.until.set(interval[1]);
  }

  knows(order) {
    return Array.isArray(order) ? order.length === this.model.num_tokens : this.model.orders.includes(order);
  }

  // faults

  /** Marks the field that an error names. Returns whether there is one. */
  fail(error) {
    const control = this.controls.get(error.field);
    if (!control) return false;
    if (this.more.contains(control.field)) this.more.open = true;
    control.fault.textContent = error.sentence;
    control.fault.hidden = false;
    setAttributes(control.input, { "aria-invalid": "true", "aria-describedby": control.fault.id });
    const focused = control.input.matches("fieldset") ? control.input.querySelector("input") : control.input;
    focused.focus();
    return true;
  }

  clearFault(name) {
    const control = this.controls.get(name);
    control.fault.hidden = true;
    setAttributes(control.input, { "aria-invalid": null, "aria-describedby": null });
  }

  clearFaults() {
    for (const name of this.controls.keys()) this.clearFault(name);
  }
}

export function randomSeed() {
  const [bits] = crypto.getRandomValues(new Uint32Array(1));
  return bits >>> (32 - SEED_BITS);
}

function fill(select, choices) {
  select.replaceChildren(...choices.map(([value, text]) => el("option", { value, text })));
}
