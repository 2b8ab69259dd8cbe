/** The controls of a request: everything that they offer comes from what the models say of themselves. */

import { el, button, setAttributes, uniqueId } from "./dom.js";
import { icon, orderIcon } from "./icons.js";

const SEED_BITS = 31;
const MOST_PICTURES = 16;

const ORDER_WORDS = {
  raster: "row by row", spiral: "from the edge inwards", hilbert: "along a curve that fills the plane",
  halton: "evenly spread", random: "shuffled", locality: "outwards from what is there",
  confidence: "where the model is surest", likelihood: "the likeliest draws first: cleaner, less varied",
  distilled: "as the model's order policy says",
};
const GROUP_WORDS = {
  cosine: "few at first, many at the end", linear: "a few more each step", constant: "the same each step",
  adaptive: "as many as are safe together",
};


export class Options {
  /** `orders` is "one" or "several"; without `hasCount` one picture is made. */
  constructor(models, { orders = "one", hasCount = true, onModel = () => {} } = {}) {
    this.models = models;
    this.model = models[0];
    this.orders = orders;
    this.onModel = onModel;
    this.controls = new Map(); // field -> { input, fault }
    this.element = el("div", { class: "options" });
    this.build(hasCount);
    this.setModel(this.model.id);
  }

  build(hasCount) {
    this.modelSelect = this.select("model", "Model", this.models.map(({ id }) => [id, id]));
    this.modelSelect.input.addEventListener("change", () => this.setModel(this.modelSelect.input.value));
    this.prompt = this.area("prompt", "Prompt", "What the picture shows");
    this.chips = el("div", { class: "chips", role: "group", "aria-label": "Examples" });
    this.orderTiles = el("div", { class: "tiles" });
    this.orderField = this.fieldset("order", this.orders === "several" ? "Orders, two to four" : "Order", this.orderTiles);
    this.steps = this.slider("steps", "Steps", { min: 1, max: 1, step: 1, format: (value) => this.stepWords(value) });
    this.groups = this.select("group_sizes", "Group sizes", []);
    this.groups.input.addEventListener("change", () => this.showGroups());
    this.groupHint = el("p", { class: "hint" });
    this.bound = this.slider("entropy_bound", "Entropy bound", { min: 0, max: 20, step: 0.5, format: (v) => `${v} nats` });
    this.guidance = this.slider("guidance", "Guidance", {
      min: 1, max: 8, step: 0.25, format: (value) => (value === 1 ? "off" : value.toFixed(2)),
    });
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
        this.groups.field, this.groupHint, this.bound.field, this.temperature.field, this.topP.field, this.topK.field));
    this.element.append(...[
      this.modelSelect.field, this.prompt.field, this.chips, this.orderField.field, this.steps.field,
      this.guidance.field, pair, this.more,
    ]);
  }

  // the controls

  field(name, label, input, ...extras) {
    const id = input.id || uniqueId(name);
    const fault = el("p", { class: "fault", id: `${id}-fault`, hidden: true });
    setAttributes(input, { id, name });
    const field = el("div", { class: "field" }, el("div", { class: "field-head" }, el("label", { for: id, text: label }), ...extras), input, fault);
    const control = { field, input, fault };
    this.controls.set(name, control);
    return control;
  }

  fieldset(name, label, content) {
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
    const control = this.field("seed", "Seed", input);
    const roll = button("Roll a seed", { symbol: icon("dice"), quiet: true, on: { click: () => this.rollSeed() } });
    const holder = el("div", { class: "with-button" });
    input.replaceWith(holder);
    holder.append(input, roll);
    return control;
  }

  rollSeed() {
    const [bits] = crypto.getRandomValues(new Uint32Array(1));
    this.seed.input.value = String(bits >>> (32 - SEED_BITS));
    this.seed.input.dispatchEvent(new Event("input", { bubbles: true }));
    return this.seed.input.value;
  }

  // a model's own choices

  setModel(name) {
    const model = this.models.find(({ id }) => id === name);
    if (!model) return;
    const { defaults } = model;
    this.model = model;
    this.modelSelect.input.value = name;
    this.showExamples();
    this.showOrders(defaults.order);
    this.steps.input.max = String(model.num_tokens);
    this.steps.set(defaults.steps);
    fill(this.groups.input, model.group_sizes.map((group) => [group, group]));
    this.groups.input.value = defaults.group_sizes;
    this.bound.set(defaults.entropy_bound);
    this.guidance.set(defaults.guidance);
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

  setPrompt(text) {
    this.prompt.input.value = text;
    this.clearFault("prompt");
    this.prompt.input.dispatchEvent(new Event("input", { bubbles: true }));
  }

  showOrders(chosen) {
    const group = uniqueId("order");
    const type = this.orders === "several" ? "checkbox" : "radio";
    const first = this.orders === "several" ? firstOrders(this.model.orders) : [chosen];
    this.orderTiles.replaceChildren(...this.model.orders.map((order) => {
      const input = el("input", { type, name: group, value: order, props: { checked: first.includes(order) } });
      return el("label", { class: "tile", title: ORDER_WORDS[order] ?? order }, input, orderIcon(order), el("span", { text: order }));
    }));
  }

  stepWords(value) {
    const tokens = this.model.num_tokens;
    if (value === tokens) return `${value}, one token each`;
    return `${value} of ${tokens}`;
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

  /** The body of `POST /v1/generations`, without an order where several are chosen. */
  values() {
    const seed = this.seed.input.value.trim();
    const body = {
      model: this.model.id,
      prompt: this.prompt.input.value,
      steps: Number(this.steps.input.value),
      group_sizes: this.groups.input.value,
      guidance: Number(this.guidance.input.value),
      temperature: Number(this.temperature.input.value),
      top_p: Number(this.topP.input.value),
      top_k: Number(this.topK.input.value || 0),
    };
    if (seed !== "") body.seed = seed.length < 16 && /^\d+$/.test(seed) ? Number(seed) : seed;
    if (this.count) body.n = Number(this.count.input.value || 1);
    if (body.group_sizes === "adaptive") body.entropy_bound = Number(this.bound.input.value);
    if (this.orders === "one") [body.order] = this.chosenOrders;
    return body;
  }

  /** Fills in what made a picture; what the model does not know is left as it is. */
  set(params) {
    if (params.model) this.setModel(params.model);
    this.setPrompt(params.prompt ?? this.prompt.input.value);
    for (const [control, name] of [
      [this.steps, "steps"], [this.guidance, "guidance"], [this.temperature, "temperature"], [this.topP, "top_p"],
      [this.bound, "entropy_bound"],
    ]) if (params[name] !== undefined) control.set(params[name]);
    if (params.group_sizes) this.groups.input.value = params.group_sizes;
    if (params.top_k !== undefined) this.topK.input.value = String(params.top_k);
    if (params.seed !== undefined) this.seed.input.value = String(params.seed);
    if (this.orders === "one" && typeof params.order === "string") this.showOrders(params.order);
    this.showGroups();
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

function fill(select, choices) {
  select.replaceChildren(...choices.map(([value, text]) => el("option", { value, text })));
}

/** The orders that a comparison begins with. */
function firstOrders(orders) {
  const wanted = ["raster", "random", "halton", "confidence", "distilled"].filter((order) => orders.includes(order));
  return (wanted.length < 2 ? orders : wanted).slice(0, 3);
}
