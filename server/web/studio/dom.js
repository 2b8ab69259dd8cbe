/** Elements, made without HTML strings: nothing that a prompt or a server says can become markup. */

const SVG = "http://www.w3.org/2000/svg";

/**
 * An element. `props` are attributes; `on` holds listeners, `text` the text, `props` properties.
 * Attributes that are null, undefined or false are left out; true becomes the empty one.
 */
export function el(tag, { text, on = {}, props = {}, ...attributes } = {}, ...children) {
  const element = document.createElement(tag);
  setAttributes(element, attributes);
  for (const [type, listener] of Object.entries(on)) element.addEventListener(type, listener);
  Object.assign(element, props);
  if (text !== undefined) element.textContent = text;
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

export function svg(tag, attributes = {}, ...children) {
  const element = document.createElementNS(SVG, tag);
  setAttributes(element, attributes);
  element.append(...children);
  return element;
}

export function setAttributes(element, attributes) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) element.removeAttribute(name);
    else element.setAttribute(name, value === true ? "" : value);
  }
}

let numIds = 0;

/** An id that no other element of this page has. */
export function uniqueId(stem) {
  numIds += 1;
  return `${stem}-${numIds}`;
}

/** A button with a symbol and, unless it is `quiet`, its label beside it. */
export function button(label, { symbol = null, quiet = false, kind = "ghost", ...options } = {}) {
  const named = quiet ? { "aria-label": label, title: label } : {};
  const text = quiet ? null : el("span", { text: label });
  return el("button", { type: "button", class: `button ${kind}${quiet ? " square" : ""}`, ...named, ...options }, symbol, text);
}

/** The title of a view, for those who listen to the page: who sees it has the navigation. */
export function heading(text) {
  return el("h1", { class: "visually-hidden", text });
}

/** Whether the reader asked for calm. */
export const wantsLessMotion = () => matchMedia("(prefers-reduced-motion: reduce)").matches;
