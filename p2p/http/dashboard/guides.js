// The guides that come with yuma, as they are.

import { get } from "./api.js";
import { el, show } from "./dom.js";
import { Panel } from "./panel.js";

const DAY_MS = 86_400_000; // they only change with the program

export function begin() {
  new Panel("guides", DAY_MS, () => get("/v0/guides"), draw).refresh();
}

function draw(guides, body) {
  show(body, guides.map(({ title, text }) =>
    el("details", { class: "guide" }, el("summary", {}, title), el("pre", { tabindex: 0 }, text)),
  ));
}
