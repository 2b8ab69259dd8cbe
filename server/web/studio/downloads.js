/** What can be done with a finished picture: files of it, and its address. */

import { getBlob } from "./api.js";
import { announce } from "./announcer.js";
import { button, el, uniqueId } from "./dom.js";
import { icon } from "./icons.js";
import { canCompare, canEdit } from "./models.js";
import { recipeText } from "./recipe.js";

export function permalink(job, index) {
  return `#/p/${job.id}/${index}`;
}

/** The address of a comparison; of one job, of a comparison that is yet to be painted. */
export function comparison(jobs) {
  return `#/compare/${jobs.map(({ id }) => id).join("/")}`;
}

/** The buttons under a picture. `report(error)` is told of what fails. */
export function pictureActions(job, index, report) {
  if (job.state !== "completed") return [];
  const link = permalink(job, index);
  const isHere = location.hash === link;
  return [
    downloadMenu(job, index, report),
    canEdit(job.model) ? el("a", { class: "button ghost", href: `#/edit/${job.id}/${index}` }, icon("edit"), el("span", { text: job.model.can_edit ? "Edit" : "Vary" })) : null,
    job.params.edit || index || !canCompare(job.model) ? null : el("a", { class: "button ghost", href: comparison([job]) }, icon("compare"), el("span", { text: "Compare" })),
    isHere ? null : el("a", { class: "button ghost", href: link }, icon("external"), el("span", { text: "Details" })),
    copyButton("Link", () => new URL(link, location.href).href),
  ].filter(Boolean);
}

export function copyButton(label, makeText) {
  const made = button(label, { symbol: icon("link"), on: { click: copy } });
  async function copy() {
    await navigator.clipboard.writeText(makeText());
    announce("Copied");
    made.lastElementChild.textContent = "Copied";
    setTimeout(() => (made.lastElementChild.textContent = label), 1600);
  }
  return made;
}

function downloadMenu(job, index, report) {
  const address = `${job.url}/images/${index}`;
  const name = `${job.id}-${index}`;
  const recipeFile = ["JSON", "the request that makes it again", async () => jsonBlob(job, index), `${name}.json`];
  const video = ["Animated WebP", "the video", async () => job.blobs[index], `${name}.webp`];
  const files = job.paintings[index].isFilm ? [video, recipeFile] : [
    ["PNG", "the picture, its recipe inside", async () => job.blobs[index], `${name}.png`],
    ["Animated WebP", "the painting of it", () => getBlob(`${address}/painting?format=webp`), `${name}.webp`],
    ["Animated GIF", "the painting of it", () => getBlob(`${address}/painting?format=gif`), `${name}.gif`],
    recipeFile,
  ];
  const items = files.map(([title, about, make, file]) =>
    el("button", {
      type: "button", class: "item", on: { click: () => save(make, file, menu, report) },
    }, el("span", { text: title }), el("small", { text: about })));
  const id = uniqueId("menu");
  const menu = el("details", { class: "menu" },
    el("summary", { class: "button ghost", "aria-controls": id }, icon("download"), el("span", { text: "Download" })),
    el("div", { class: "items", id }, items));
  menu.addEventListener("keydown", (event) => event.key === "Escape" && close(menu));
  menu.addEventListener("focusout", ({ relatedTarget }) => relatedTarget && !menu.contains(relatedTarget) && (menu.open = false));
  return menu;
}

function close(menu) {
  menu.open = false;
  menu.firstElementChild.focus();
}

function jsonBlob(job, index) {
  return new Blob([`${recipeText(job, index)}\n`], { type: "application/json" });
}

async function save(make, name, menu, report) {
  close(menu);
  try {
    const url = URL.createObjectURL(await make());
    el("a", { href: url, download: name }).click();
    setTimeout(() => URL.revokeObjectURL(url), 30_000);
    announce(`Saved ${name}`);
  } catch (error) {
    report(error);
  }
}
