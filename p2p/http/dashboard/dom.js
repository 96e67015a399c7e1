// Elements made from values. Text from the network only ever becomes text nodes and attributes.

const SVG = "http://www.w3.org/2000/svg";

/** An HTML element; attributes that are null or false are left out. */
export function el(name, attributes = {}, ...children) {
  return filled(document.createElement(name), attributes, children);
}

/** An SVG element. */
export function svg(name, attributes = {}, ...children) {
  return filled(document.createElementNS(SVG, name), attributes, children);
}

function filled(made, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined && value !== false) {
      made.setAttribute(name, value === true ? "" : value);
    }
  }
  made.append(...there(children));
  return made;
}

const there = (children) =>
  children.flat(Infinity).filter((one) => one !== null && one !== undefined && one !== "");

/** Show these children in a place, changing only what differs: focus and scroll stay. */
export function show(place, ...children) {
  const next = place.cloneNode(false);
  next.append(...there(children));
  morph(place, next);
}

const KEPT = new Set(["open"]); // what the reader changes, not we

function morph(old, next) {
  if (old.nodeName !== next.nodeName) return old.replaceWith(next);
  if (old.nodeType === Node.TEXT_NODE) {
    if (old.data !== next.data) old.data = next.data;
    return;
  }
  for (const { name } of [...old.attributes]) {
    if (!next.hasAttribute(name) && !KEPT.has(name)) old.removeAttribute(name);
  }
  for (const { name, value } of next.attributes) {
    if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  }
  const before = [...old.childNodes];
  const after = [...next.childNodes];
  after.forEach((child, at) => (at < before.length ? morph(before[at], child) : old.append(child)));
  before.slice(after.length).forEach((child) => child.remove());
}

/** A table that scrolls by itself where it is too wide; heads that begin with # are numbers. */
export function table(label, heads, rows) {
  const classes = heads.map((head) => (head.startsWith("#") ? "number" : null));
  const cells = (row) => row.cells.map((cell, at) => el("td", { class: classes[at] }, cell));
  const named = heads.map((head, at) =>
    el("th", { scope: "col", class: classes[at] }, head.replace(/^#/, "")),
  );
  return el(
    "div",
    { class: "scroll", tabindex: 0, role: "region", "aria-label": label },
    el(
      "table",
      {},
      el("thead", {}, el("tr", {}, named)),
      el("tbody", {}, rows.map((row) => el("tr", { class: row.class }, cells(row)))),
    ),
  );
}

/** Names and values. */
export function facts(pairs) {
  return el(
    "dl",
    { class: "facts" },
    pairs.filter(Boolean).map(([name, value, title]) =>
      el("div", {}, el("dt", {}, name), el("dd", { title }, value)),
    ),
  );
}

/** A part of one, as a bar beside its number. */
export function bar(part) {
  const width = Math.max(0, Math.min(1, part)) * 100;
  return svg(
    "svg",
    { class: "bar", viewBox: "0 0 100 6", preserveAspectRatio: "none", "aria-hidden": "true" },
    svg("rect", { class: "whole", width: 100, height: 6, rx: 1 }),
    svg("rect", { class: "part", width: width.toFixed(2), height: 6, rx: 1 }),
  );
}

/** A state: a shape and a word, so that no colour is needed to read it. */
export function state(kind, word) {
  const shape = { good: "●", busy: "◐", warn: "▲", bad: "■" }[kind];
  return el("span", { class: `state ${kind}` }, el("span", { "aria-hidden": "true" }, shape), ` ${word}`);
}

/** A peer by its last letters, as a button that selects it in the graph. */
export function peer(id, me) {
  const words = id === me ? `${short(id)} (this node)` : short(id);
  return el("button", { class: "peer", type: "button", "data-peer": id, title: id }, words);
}

/** The last letters of a peer id: the first ones are the same for all. */
export function short(id) {
  return id.slice(-6);
}
