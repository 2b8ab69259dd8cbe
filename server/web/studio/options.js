/** The controls of a request: everything that they offer comes from what the models say of themselves. */

import { Controls, fill } from "./controls.js";
import { el, button, setAttributes, uniqueId } from "./dom.js";
import { icon, orderIcon } from "./icons.js";
import { loadClasses, numKept, rivalsOf } from "./models.js";
import { hasOneValue, optionWords, stops } from "./option_words.js";
import { COARSE, contrasting, CUSTOM, orderName, orderWords } from "./orders.js";
import { store, stored } from "./storage.js";

const PROMPT = "oar.prompt"; // what stood in a form last
const SEED_BITS = 31;
const MOST_PICTURES = 16;

const GROUP_WORDS = {
  cosine: "Few at first, many at the end.", linear: "A few more each step.", constant: "The same each step.",
  adaptive: "As many as are safe together.", published: "As the model's authors decode it.",
  fitted: "As the model was measured to do best.",
};
const FRONT = ["steps", "candidates", "guidance"]; // beside the prompt; the others are under "Sampling"

export class Options {
  /** `orders` is "one" or "several"; without `hasCount` one picture is made. */
  constructor(models, { orders = "one", hasCount = true, onModel = () => {} } = {}) {
    this.models = models;
    this.model = models[0];
    this.orders = orders;
    this.custom = null; // the positions of an order that has no name
    this.onModel = onModel;
    this.controls = new Controls();
    this.element = el("div", { class: "options" });
    this.build(hasCount);
    this.prompt.input.value = stored(PROMPT) ?? "";
    this.classes.input.value = this.prompt.input.value;
    this.prompt.input.addEventListener("input", () => store(PROMPT, this.prompt.input.value));
    this.setModel(this.model.id);
  }

  build(hasCount) {
    this.modelSelect = this.controls.select("model", "Model", this.models.map(({ id }) => [id, id]));
    this.modelSelect.input.addEventListener("change", () => this.setModel(this.modelSelect.input.value));
    this.prompt = this.controls.area("prompt", "Prompt", "What the picture shows");
    this.classes = this.classSearch();
    this.chips = el("div", { class: "chips", role: "group", "aria-label": "Examples" });
    this.orderTiles = el("div", { class: "tiles", on: { change: () => this.showOrderWords() } });
    this.orderHint = el("p", { class: "hint", id: uniqueId("order-hint"), "aria-live": "polite", hidden: this.orders === "several" });
    this.orderField = this.controls.fieldset("order", this.orders === "several" ? "Orders, two to four" : "Order", this.orderTiles, this.orderHint);
    this.groupHint = el("p", { class: "hint" });
    this.described = this.buildDescribed();
    this.seed = this.seedField();
    this.count = hasCount ? this.controls.number("n", "Pictures", { min: 1, max: MOST_PICTURES, value: 1 }) : null;
    this.lay();
  }

  lay() {
    const pair = el("div", { class: "pair" }, this.seed.field, this.count?.field ?? null);
    const fields = (names) => names.flatMap((name) => this.described.get(name)?.fields ?? []);
    this.more = el("details", { class: "more" },
      el("summary", { text: "Sampling" }),
      el("div", { class: "stack" }, fields([...this.described.keys()].filter((name) => !FRONT.includes(name)))));
    this.described.get("group_sizes")?.fields[0].append(this.groupHint);
    this.element.append(...[
      this.modelSelect.field, this.prompt.field, this.classes.field, this.chips, this.orderField.field,
      ...fields(FRONT), pair, this.more,
    ]);
  }

  // what the models say of their options

  /** A control for each option that any of the models has: { fields, get, set, limit }. Orders have their tiles. */
  buildDescribed() {
    const known = new Map();
    for (const option of this.models.flatMap(({ options }) => options)) {
      if (option.kind !== "order" && !known.has(option.name)) known.set(option.name, this.describedControl(option));
    }
    return known;
  }

  describedControl(option) {
    if (option.is_pair) return this.pairControl(option);
    if (option.choices.length) return this.choiceControl(option);
    if (option.kind === "text") return this.textControl(option);
    return stops(option) ? this.sliderControl(option) : this.numberControl(option);
  }

  format(option) {
    if (option.name === "steps") return (value) => this.stepWords(value);
    return (value) => optionWords(option, value);
  }

  sliderControl(option) {
    const [min, max, step] = stops(option);
    const control = this.controls.slider(option.name, option.label, { min, max, step, title: option.description, format: this.format(option) });
    const limit = (other) => setAttributes(control.input, { min: stops(other)[0], max: stops(other)[1] });
    return { fields: [control.field], get: () => Number(control.input.value), set: control.set, limit };
  }

  pairControl(option) {
    const [min, max, step] = option.usual;
    const label = option.label.replace(/ interval$/, "");
    const ends = [["from", option.name], ["until", `${option.name}_until`]].map(([word, name]) =>
      this.controls.slider(name, `${label} ${word}`, { min, max, step, title: option.description, format: this.format(option) }));
    return {
      fields: ends.map(({ field }) => field),
      get: () => ends.map(({ input }) => Number(input.value)),
      set: (values) => ends.forEach((end, place) => end.set(values[place])),
    };
  }

  choiceControl(option) {
    const control = this.controls.select(option.name, option.label, option.choices.map((choice) => [choice, choice]), option.description);
    control.input.addEventListener("change", () => this.showOnly());
    const limit = ({ choices }) => fill(control.input, choices.map((choice) => [choice, choice]));
    const get = () => (control.input.value.startsWith("[") ? JSON.parse(control.input.value) : control.input.value);
    const set = (value) => {
      if (Array.isArray(value)) offer(control.input, value);
      control.input.value = choiceText(value);
    };
    return { fields: [control.field], get, set, limit };
  }

  numberControl(option) {
    const { minimum: min, maximum: max } = option;
    const control = this.controls.number(option.name, option.label, { min, max, title: option.description, placeholder: min === 0 ? "0 is all" : "" });
    const get = () => (control.input.value === "" ? undefined : Number(control.input.value));
    /** Empty where the model's own 0 stands for all, as the placeholder says. */
    const set = (value) => {
      const isUsual = value === this.option(option.name)?.default;
      control.input.value = value === 0 && min === 0 && isUsual ? "" : String(value);
    };
    return { fields: [control.field], get, set };
  }

  /** Nothing is said where the text is the model's own. */
  textControl(option) {
    const control = this.controls.field(option.name, option.label, el("input", { type: "text", autocomplete: "off", title: option.description }));
    const get = () => (control.input.value === (this.option(option.name)?.default ?? "") ? undefined : control.input.value);
    return { fields: [control.field], get, set: (value) => (control.input.value = value ?? "") };
  }

  /** What the model says of one of its options. */
  option(name) {
    return this.model.options.find((option) => option.name === name);
  }

  /** Shows the options that do something with what is chosen. */
  showOnly() {
    for (const [name, { fields }] of this.described) {
      const option = this.option(name);
      for (const field of fields) field.hidden = !option || hasOneValue(option) || !this.acts(option);
    }
    this.more.hidden = [...this.more.querySelectorAll(".field")].every((field) => field.hidden);
    this.groupHint.hidden = hasOneValue(this.option("group_sizes") ?? { choices: [null] });
    this.groupHint.textContent = GROUP_WORDS[this.described.get("group_sizes")?.get()] ?? "";
  }

  acts({ only }) {
    if (!only) return true;
    const [name, ...values] = only;
    const chosen = name === "order" ? this.chosenOrders : [this.described.get(name)?.get()];
    return chosen.some((value) => values.includes(value));
  }

  seedField() {
    const input = el("input", {
      type: "text", inputmode: "numeric", pattern: "[0-9]*", placeholder: "random", autocomplete: "off",
      title: "The same seed and settings make the same picture.",
    });
    this.seedAgain = el("button", { type: "button", class: "again", title: "Use this seed again", hidden: true });
    this.seedAgain.addEventListener("click", () => this.setSeed(this.lastSeed));
    const control = this.controls.field("seed", "Seed", input, this.seedAgain);
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
    this.controls.clearFault("seed");
  }

  /** For models of classes: their names, searched while one types. What stands in it is the prompt. */
  classSearch() {
    const list = el("datalist", { id: uniqueId("classes") });
    const input = el("input", { type: "search", list: list.id, placeholder: "Search its classes", autocomplete: "off", spellcheck: "false" });
    const control = this.controls.field("class", "Class", input);
    control.list = list;
    control.field.append(list);
    control.field.hidden = true;
    input.addEventListener("input", () => this.setPrompt(input.value));
    return control;
  }

  async showClasses() {
    const { model } = this;
    const hasClasses = model.condition === "class";
    this.prompt.field.hidden = hasClasses || model.condition === "none";
    this.classes.field.hidden = !hasClasses;
    this.classes.list.replaceChildren();
    if (!hasClasses) return;
    const names = await loadClasses(model.id).catch(() => []); // without the list, names can still be typed
    if (this.model !== model) return;
    this.classes.list.replaceChildren(...names.map((name) => el("option", { value: name.split(",")[0].trim(), label: name })));
  }

  /** What a job was read as, where that is not what was said. */
  offerClass(drawn) {
    if (drawn && !drawn.is_exact) this.setPrompt(drawn.name);
  }

  // a model's own choices

  setModel(name) {
    const model = this.models.find(({ id }) => id === name);
    if (!model) return;
    const { defaults } = model;
    this.model = model;
    this.modelSelect.input.value = name;
    this.showClasses();
    this.showExamples();
    this.offerExample();
    if (this.custom?.length !== model.num_tokens) this.custom = null;
    this.showOrders(this.orders === "several" ? contrasting(defaults.order, model) : [defaults.order]);
    for (const option of model.options) {
      const control = this.described.get(option.name);
      control?.limit?.(option);
      control?.set(option.default);
    }
    this.showOnly();
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
    if (this.classes.input.value !== text) this.classes.input.value = text;
    this.controls.clearFault("prompt");
    this.controls.clearFault("class");
    this.prompt.input.dispatchEvent(new Event("input", { bubbles: true }));
  }

  /** Ticks what is `chosen`: names, or a list of positions. What the model does not know is left out. */
  showOrders(chosen) {
    this.custom = chosen.find(Array.isArray) ?? this.custom;
    const ticked = chosen.map(orderName);
    const group = uniqueId("order");
    const type = this.orders === "several" ? "checkbox" : "radio";
    const names = this.custom ? [...this.model.orders, CUSTOM] : this.model.orders;
    const rivals = this.orders === "several" ? rivalsOf(this.model) : [];
    this.orderField.field.hidden = names.length < 2;
    const tile = (value, label, words, symbol) => {
      const input = el("input", { type, name: group, value, props: { checked: ticked.includes(value) } });
      return el("label", { class: "tile", title: words }, input, symbol, el("span", { text: label }));
    };
    this.orderTiles.replaceChildren(
      ...names.map((order) => tile(order, order, orderWords(order), orderIcon(order))),
      ...rivals.map((rival) => tile(rivalName(rival), rival.id, orderWords(COARSE), orderIcon(COARSE))));
    this.showOrderWords();
  }

  showOrderWords() {
    this.showOnly();
    if (this.orders === "one") this.orderHint.textContent = orderWords(this.chosenOrders[0]);
    else this.levelSteps();
  }

  /** Orders are compared with a model of sequences at as many steps as that takes. */
  levelSteps() {
    const rival = this.chosenOrders.map((name) => this.rivalNamed(name)).find(Boolean);
    const steps = this.described.get("steps");
    for (const input of steps?.fields[0].querySelectorAll("input") ?? []) input.disabled = Boolean(rival);
    if (rival) steps?.set(rival.layout.shape.length);
    this.orderHint.hidden = !rival;
    this.orderHint.textContent = rival
      ? `${rival.id} takes ${rival.layout.shape.length} steps, with settings of its own. The orders get ${steps?.get()}.` : "";
  }

  /** The model that a tile stands for, of those that are compared with this one's orders. */
  rivalNamed(name) {
    return rivalsOf(this.model).find((rival) => rivalName(rival) === name) ?? null;
  }

  stepWords(value) {
    const tokens = this.model.num_tokens;
    if (value === tokens) return `${value}, a patch each`;
    return `${value} for ${tokens} patches`;
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
    const body = { model: this.model.id };
    if (this.model.condition !== "none") body.prompt = this.prompt.input.value;
    if (seed !== "") body.seed = seed.length < 16 && /^\d+$/.test(seed) ? Number(seed) : seed;
    if (this.count) body.n = Number(this.count.input.value || 1);
    if (numKept(this.model)) body.kept_previews = numKept(this.model);
    for (const option of this.model.options) {
      const value = this.acts(option) ? this.described.get(option.name)?.get() : undefined;
      if (value !== undefined) body[option.name] = value;
    }
    if (this.orders === "one" && this.model.orders.length) body.order = this.orderNamed(this.chosenOrders[0]);
    return body;
  }

  /** Fills in what made a picture; what the model does not know is left as it is. */
  set(params) {
    if (params.model) this.setModel(params.model);
    this.setPrompt(params.prompt ?? this.prompt.input.value);
    for (const [name, { set }] of this.described) if (params[name] !== undefined && this.option(name)) set(params[name]);
    if (params.seed !== undefined) this.seed.input.value = String(params.seed);
    if (this.count && params.n !== undefined) this.count.input.value = String(params.n);
    if (this.orders === "one" && this.knows(params.order)) this.showOrders([params.order]);
    this.showOnly();
  }

  /** The settings that a job shares with a model to compare it with. */
  meet({ model, params: { prompt, seed } }) {
    const other = this.models.find((each) => rivalsOf(each).includes(model));
    this.set({ model: other?.id, prompt, seed });
  }

  knows(order) {
    return Array.isArray(order) ? order.length === this.model.num_tokens : this.model.orders.includes(order);
  }

  /** Marks the field that an error names. Returns whether there is one. */
  fail(error) {
    const isOfClass = error.field === "prompt" && this.model.condition === "class";
    return this.controls.fail(isOfClass ? "class" : error.field, error.sentence, this.more);
  }

  clearFaults() {
    this.controls.clearFaults();
  }
}

export function randomSeed() {
  const [bits] = crypto.getRandomValues(new Uint32Array(1));
  return bits >>> (32 - SEED_BITS);
}

/** A list of numbers is a choice by its JSON. */
function choiceText(value) {
  return Array.isArray(value) ? JSON.stringify(value) : value;
}

/** Adds a list of numbers that has no name, once. */
function offer(select, numbers) {
  const value = choiceText(numbers);
  if (![...select.options].some((choice) => choice.value === value)) select.append(el("option", { value, text: numbers.join(" ") }));
}

/** What stands for a model among orders: none has such a name. */
export function rivalName({ id }) {
  return `model:${id}`;
}
