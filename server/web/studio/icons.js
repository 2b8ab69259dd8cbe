/** Line drawings: the page's symbols, and one for each order of painting. */

import { svg } from "./dom.js";

const SYMBOLS = {
  play: "M7 5.500v13l11-6.500z",
  pause: "M8 5v14M16 5v14",
  again: "M4.500 12a7.500 7.500 0 1 0 2.400-5.500M4.500 4v4h4",
  download: "M12 4v11M7.500 11l4.500 4.500L16.500 11M5 20h14",
  edit: "M4.500 19.500l1-4L16 5l3 3L8.500 18.500zM14 7l3 3",
  link: "M10 14a4 4 0 0 0 5.700 0l3-3a4 4 0 0 0-5.700-5.700l-1 1M14 10a4 4 0 0 0-5.700 0l-3 3a4 4 0 0 0 5.700 5.700l1-1",
  dice: "M7 4.500h10a2.500 2.500 0 0 1 2.500 2.500v10a2.500 2.500 0 0 1-2.500 2.500H7A2.500 2.500 0 0 1 4.500 17V7A2.500 2.500 0 0 1 7 4.500zM8.800 8.800h.4v.4h-.4zM14.800 14.800h.4v.4h-.4zM11.800 11.800h.4v.4h-.4z",
  close: "M6 6l12 12M18 6L6 18",
  sun: "M12 8a4 4 0 1 0 0 8 4 4 0 0 0 0-8zM12 2.500v2M12 19.500v2M2.500 12h2M19.500 12h2M5.300 5.300l1.400 1.400M17.300 17.300l1.400 1.400M5.300 18.700l1.400-1.400M17.300 6.700l1.400-1.400",
  moon: "M19.500 14.500A8 8 0 0 1 9.500 4.500a8 8 0 1 0 10 10z",
  key: "M14.500 4.500a5 5 0 1 0 0 10 5 5 0 0 0 0-10zM11 13l-6.500 6.500M7 17l2 2",
  brush: "M20 4c-5 2-8.500 5.500-10 8.500l1.500 1.500C14.500 12.500 18 9 20 4zM9.500 13.500c-2.500 0-4 1.500-4 3.500 0 1-.5 2-1.500 2.500 3.500 1 7 0 7-4z",
  eraser: "M9 19l-4.500-4.500 9-9L19 11l-8 8zM10 9l5.500 5.500M8 19h12",
  undo: "M8 5L4 9l4 4M4 9h9.500a5.500 5.500 0 0 1 0 11H9",
  invert: "M12 4a8 8 0 1 0 0 16zM12 4a8 8 0 0 1 0 16",
  clear: "M5 7h14M10 7V4.500h4V7M7 7l1 12.500h8L17 7",
  upload: "M12 15.500V4.500M7.500 9L12 4.500 16.500 9M5 20h14",
  heat: "M5 19V5M5 19h14M8.500 15.500h2v-3h3v-4h4",
  more: "M12 5v14M5 12h14",
  external: "M8 6H5v13h13v-3M13 5h6v6M19 5l-9 9",
  compare: "M4.500 5h6v14h-6zM13.500 5h6v14h-6z",
  help: "M8.200 8.300a3.800 3.800 0 1 1 5.900 3.200c-1.400.9-2.100 1.700-2.100 3.300M12 19h.01",
  image: "M4.500 5h15v14h-15zM4.500 16l4-4 3.500 3.500 2.500-2.500 5 5M15 9h.01",
};

/** Strokes on a 24 x 24 field; points are dots. */
const ORDERS = {
  raster: ["M5 5.500h14M5 10h14M5 14.500h14M5 19h8"],
  spiral: ["M5 5h14v14H5V9h10v6H9.500v-2"],
  hilbert: ["M5 19V14.300h4.700V19h4.600M19 19v-4.700h-4.700V9.700H19V5h-4.700M9.700 5H5v4.700h4.700z"],
  halton: [dots([5, 12], [12, 6], [18.500, 15], [8, 18], [15, 10.500], [19, 5], [6, 6], [13, 18.500])],
  random: [dots([6, 5], [8, 7.500], [18, 6], [16.500, 12], [19, 13.500], [6, 17], [10, 14], [14, 19])],
  locality: ["M12 9.500a2.500 2.500 0 1 0 0 5 2.500 2.500 0 0 0 0-5z", "M12 5a7 7 0 1 0 0 14 7 7 0 0 0 0-14z"],
  spaced: ["M12 8.500a3.500 3.500 0 1 0 0 7 3.500 3.500 0 0 0 0-7z", "M12 4.500h.01M19.500 12h.01M12 19.500h.01M4.500 12h.01"],
  confidence: ["M12 4.500a7.500 7.500 0 1 0 0 15 7.500 7.500 0 0 0 0-15z", "M8.500 12.200l2.500 2.500 4.500-5"],
  likelihood: ["M5.500 19v-5M10 19V9M14.500 19V5M19 19v-8"],
  custom: ["M5 6.500h3M5 12h3M5 17.500h3M11 6.500h8M11 12h8M11 17.500h8"],
  distilled: ["M10 4.500h4M10.700 4.500V10L6 18a1 1 0 0 0 .9 1.500h10.200A1 1 0 0 0 18 18l-4.700-8V4.500M8.500 14.500h7"],
  prompted: ["M4.500 5h15v11H11l-4 3.500V16H4.500z", "M8 9h8M8 12h5"],
  "coarse to fine": ["M4.500 4.500h15v15h-15z", "M12 8.500v7M8.500 12h7"],
  shortlist: ["M5 7h9M5 12h9M5 17h5", "M13 16.500l2.500 2.500 4.500-5.500"],
};

function dots(...points) {
  return points.map(([x, y]) => `M${x} ${y}h.01`).join("");
}

export function icon(name) {
  return drawing([SYMBOLS[name]], "icon");
}

export function orderIcon(name) {
  const dotted = name === "halton" || name === "random" ? " dotted" : "";
  return drawing(ORDERS[name] ?? ORDERS.raster, `icon${dotted}`);
}

function drawing(strokes, name) {
  const paths = strokes.map((d) => svg("path", { d }));
  return svg("svg", { class: name, viewBox: "0 0 24 24", "aria-hidden": "true", focusable: "false" }, ...paths);
}
