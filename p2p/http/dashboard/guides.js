// The guides that come with yuma, as they are.

import { offers, shared } from "./api.js";
import { el, show } from "./dom.js";
import { Panel } from "./panel.js";

const DAY_MS = 86_400_000; // they only change with the program

export function begin() {
  new Panel("guides", DAY_MS, load, draw).refresh();
}

async function load() {
  return (await offers("/v0/guides")) ? shared("/v0/guides", DAY_MS) : [];
}

function draw(guides, body) {
  if (!guides.length) {
    show(body, el("p", { class: "quiet" }, "In a terminal: yuma --help, and the README."));
    return;
  }
  show(body, guides.map(({ title, text }) =>
    el("details", { class: "guide" }, el("summary", {}, title), el("pre", { tabindex: 0 }, text)),
  ));
}
