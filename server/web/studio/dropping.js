/** Files that are dropped on the page or pasted into it, whichever view is shown. */

import { pictureIn } from "./upload.js";

/** `onFile(file)` takes pictures and JSON, `onFault(sentence)` is told of anything else. */
export function listenForFiles({ onFile, onFault }) {
  const mark = (isOver) => document.body.classList.toggle("dropping", isOver);
  window.addEventListener("dragover", (event) => {
    if (!event.dataTransfer?.types.includes("Files")) return;
    event.preventDefault(); // else the browser would leave the page for the file
    mark(true);
  });
  window.addEventListener("dragleave", (event) => event.relatedTarget === null && mark(false));
  window.addEventListener("drop", (event) => {
    mark(false);
    if (!event.dataTransfer?.types.includes("Files")) return;
    event.preventDefault();
    const file = pictureIn(event.dataTransfer) ?? jsonIn(event.dataTransfer);
    if (file) onFile(file);
    else onFault("This is no picture.");
  });
  document.addEventListener("paste", (event) => {
    const file = pictureIn(event.clipboardData);
    if (file) onFile(file);
  });
}

function jsonIn(transfer) {
  return [...transfer.files].find((file) => file.type === "application/json") ?? null;
}
