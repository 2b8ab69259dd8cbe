/** The page: its views, and which of them the address shows. */

import { announce } from "./announcer.js";
import { CompareView } from "./compare.js";
import { CreateView } from "./create.js";
import { el } from "./dom.js";
import { listenForFiles } from "./dropping.js";
import { EditView } from "./editing.js";
import { GalleryView } from "./gallery.js";
import { icon } from "./icons.js";
import { changeKey, key } from "./key.js";
import { canEdit, hasOrders, loadModels } from "./models.js";
import { PictureView } from "./picture.js";
import { readRecipe } from "./recipe.js";
import { onFreeKey, showShortcuts } from "./shortcuts.js";
import { store } from "./storage.js";

const main = document.getElementById("main");

class Router {
  constructor(models) {
    this.models = models;
    this.views = new Map();
    this.makers = {
      "": () => new CreateView(models), gallery: () => new GalleryView(), p: () => new PictureView((params) => this.repeat(params)),
    };
    this.offer("compare", models.filter(hasOrders), (able) => new CompareView(able));
    this.offer("edit", models.filter(canEdit), (able) => new EditView(able));
    window.addEventListener("hashchange", () => this.show());
    this.show();
  }

  /** A view for the models that can do what it is for; where none can, there is no way to it. */
  offer(name, models, make) {
    if (models.length) this.makers[name] = () => make(models);
    document.querySelector(`nav a[href="#/${name}"]`).hidden = !models.length;
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
    const [requested = "", ...rest] = location.hash.replace(/^#\/?/, "").split("/").filter(Boolean);
    const name = requested in this.makers ? requested : "";
    const shown = this.view(name);
    for (const view of this.views.values()) view.element.hidden = view !== shown;
    for (const link of document.querySelectorAll("nav a")) {
      const isCurrent = link.getAttribute("href") === (name === "p" ? "#/gallery" : `#/${name}`);
      if (isCurrent) link.setAttribute("aria-current", "page");
      else link.removeAttribute("aria-current");
    }
    document.title = `${shown.title} · OAR studio`;
    this.shown = shown;
    shown.enter?.(rest);
    window.scrollTo(0, 0);
    if (this.isStarted) announce(shown.title);
    this.isStarted = true;
  }

  repeat(params) {
    this.view("").repeat(params);
    location.hash = "#/";
  }

  /** A picture goes to Edit. On other views, one that says how it was made fills in the form of Create. */
  async open(file) {
    const isToEdit = this.shown === this.views.get("edit") && file.type !== "application/json";
    const params = isToEdit ? null : await readRecipe(file);
    if (params) {
      this.repeat(params);
      announce("Its settings are in the form");
      return;
    }
    if (!("edit" in this.makers)) {
      this.shown.notice?.show("The models here paint whole pictures; none can edit one.");
      return;
    }
    location.hash = "#/edit";
    await this.view("edit").load(file);
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

function setUpKeys() {
  const help = document.getElementById("help");
  help.append(icon("help"));
  help.addEventListener("click", showShortcuts);
  onFreeKey(({ key: pressed }) => pressed === "?" && showShortcuts());
}

/** Only where the server asks for one. */
function showKeyButton() {
  const shown = document.getElementById("key-button");
  shown.hidden = key() === "";
  shown.append(icon("key"));
  shown.addEventListener("click", changeKey);
}

/** An open menu closes when the reader turns to something else. */
function setUpMenus() {
  document.addEventListener("pointerdown", ({ target }) => {
    for (const menu of document.querySelectorAll("details.menu[open]")) menu.open = menu.contains(target);
  });
}

async function start() {
  setUpTheme();
  setUpKeys();
  setUpMenus();
  const waiting = document.getElementById("waiting");
  try {
    const models = await loadModels((sentence) => (waiting.textContent = `${sentence} Waiting for it.`));
    waiting.remove();
    showKeyButton();
    const router = new Router(models);
    listenForFiles({ onFile: (file) => router.open(file), onFault: (sentence) => router.shown.notice?.show(sentence) });
  } catch (error) {
    const again = el("button", { class: "button solid", type: "button", text: "Try again", on: { click: () => location.reload() } });
    waiting.replaceChildren(el("span", { role: "alert", text: error.sentence ?? "The page could not be started." }), again);
    if (!("sentence" in error)) throw error;
  }
}

start();
