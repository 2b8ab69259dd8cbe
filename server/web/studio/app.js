/** The page: its views, and which of them the address shows. */

import { announce } from "./announcer.js";
import { CompareView } from "./compare.js";
import { CreateView } from "./create.js";
import { el } from "./dom.js";
import { EditView } from "./editing.js";
import { GalleryView } from "./gallery.js";
import { icon } from "./icons.js";
import { loadModels } from "./models.js";
import { PictureView } from "./picture.js";
import { store } from "./storage.js";

const main = document.getElementById("main");

class Router {
  constructor(models) {
    this.models = models;
    this.views = new Map();
    this.makers = {
      "": () => new CreateView(models), compare: () => new CompareView(models), edit: () => new EditView(models),
      gallery: () => new GalleryView(), p: () => new PictureView((params) => this.repeat(params)),
    };
    window.addEventListener("hashchange", () => this.show());
    this.show();
  }

  /** A view is made when it is first looked at, and keeps its state. */
  view(name) {
    if (!this.views.has(name)) {
      const view = this.makers[name]();
      this.views.set(name, view);
      main.append(view.element);
    }
    return this.views.get(name);
  }

  show() {
    const [wanted = "", ...rest] = location.hash.replace(/^#\/?/, "").split("/").map(decodeURIComponent);
    const name = wanted in this.makers ? wanted : "";
    const shown = this.view(name);
    for (const view of this.views.values()) view.element.hidden = view !== shown;
    for (const link of document.querySelectorAll("nav a")) {
      const isCurrent = link.getAttribute("href") === (name === "p" ? "#/gallery" : `#/${name}`);
      if (isCurrent) link.setAttribute("aria-current", "page");
      else link.removeAttribute("aria-current");
    }
    document.title = `${shown.title} · OAR studio`;
    shown.enter?.(rest);
    window.scrollTo(0, 0);
    if (this.isStarted) announce(shown.title);
    this.isStarted = true;
  }

  repeat(params) {
    this.view("").repeat(params);
    location.hash = "#/";
  }
}

function setUpTheme() {
  const toggle = document.getElementById("theme");
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (document.documentElement.dataset.theme ?? (dark.matches ? "dark" : "light")) === "dark";
  const render = () => toggle.replaceChildren(icon(isDark() ? "sun" : "moon"));
  toggle.addEventListener("click", () => {
    const theme = isDark() ? "light" : "dark";
    document.documentElement.dataset.theme = theme;
    store("oar.theme", theme);
    render();
    window.dispatchEvent(new Event("resize"));
  });
  dark.addEventListener("change", render);
  render();
}

/** An open menu closes when the reader turns to something else. */
function setUpMenus() {
  document.addEventListener("pointerdown", ({ target }) => {
    for (const menu of document.querySelectorAll("details.menu[open]")) menu.open = menu.contains(target);
  });
}

async function start() {
  setUpTheme();
  setUpMenus();
  const waiting = document.getElementById("waiting");
  try {
    const models = await loadModels((sentence) => (waiting.textContent = `${sentence} Waiting for it.`));
    waiting.remove();
    new Router(models);
  } catch (error) {
    const again = el("button", { class: "button solid", type: "button", text: "Try again", on: { click: () => location.reload() } });
    waiting.replaceChildren(el("span", { role: "alert", text: error.sentence ?? "The page could not be started." }), again);
    if (!("sentence" in error)) throw error;
  }
}

start();
