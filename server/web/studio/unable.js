/** A view in place of one that none of the server's models can serve. */

import { el } from "./dom.js";

export class UnableView {
  constructor(title, sentence) {
    this.title = title;
    this.element = el("div", { class: "page missing" },
      el("h1", { text: title }),
      el("p", { class: "muted", text: sentence }),
      el("a", { class: "button primary", href: "#/", text: "Create" }));
  }
}
