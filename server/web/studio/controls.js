/** The fields of a form: each has a label, an input and a place for its fault. */

import { el, setAttributes, uniqueId } from "./dom.js";

export class Controls {
  known = new Map(); // by the field's name: { field, input, fault }

  field(name, label, input, ...extras) {
    const id = input.id || uniqueId(name);
    const fault = el("p", { class: "fault", id: `${id}-fault`, hidden: true });
    setAttributes(input, { id, name });
    const field = el("div", { class: "field" }, el("div", { class: "field-head" }, el("label", { for: id, text: label }), ...extras), input, fault);
    const control = { field, input, fault };
    this.known.set(name, control);
    return control;
  }

  fieldset(name, label, ...content) {
    const fault = el("p", { class: "fault", id: uniqueId(`${name}-fault`), hidden: true });
    const field = el("fieldset", { class: "field" }, el("legend", { text: label }), content, fault);
    const control = { field, input: field, fault };
    this.known.set(name, control);
    return control;
  }

  select(name, label, choices, title) {
    const control = this.field(name, label, el("select", { title }));
    fill(control.input, choices);
    return control;
  }

  area(name, label, placeholder) {
    return this.field(name, label, el("textarea", { rows: "3", placeholder, spellcheck: "false" }));
  }

  number(name, label, { min, max, title, value = "", placeholder = "" }) {
    return this.field(name, label, el("input", { type: "number", inputmode: "numeric", min, max, step: "1", title, value, placeholder }));
  }

  slider(name, label, { min, max, step, title, format }) {
    const id = uniqueId(name);
    const output = el("output", { for: id });
    const control = this.field(name, label, el("input", { type: "range", id, min, max, step, title }), output);
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

  /** Marks a field. Returns whether there is one. What is folded away in `more` is opened. */
  fail(name, sentence, more) {
    const control = this.known.get(name);
    if (!control) return false;
    if (more.contains(control.field)) more.open = true;
    control.fault.textContent = sentence;
    control.fault.hidden = false;
    setAttributes(control.input, { "aria-invalid": "true", "aria-describedby": control.fault.id });
    const focused = control.input.matches("fieldset") ? control.input.querySelector("input") : control.input;
    focused.focus();
    return true;
  }

  clearFault(name) {
    const control = this.known.get(name);
    control.fault.hidden = true;
    setAttributes(control.input, { "aria-invalid": null, "aria-describedby": null });
  }

  clearFaults() {
    for (const name of this.known.keys()) this.clearFault(name);
  }
}

export function fill(select, choices) {
  select.replaceChildren(...choices.map(([value, text]) => el("option", { value, text })));
}
