// The swarm's graph as a picture. What a node is says its shape and a letter, not its colour alone.

import { short, svg } from "./dom.js";
import { Layout } from "./force.js";
import { rtt } from "./format.js";

const MARGIN = 34;
const FEW = 40; // up to here every node bears its name
const TIMED = 8; // neighbours of the selected node up to which edges bear their round trips
const DENSE = 120; // edges from which on they are fainter
const SMALL = 0.6; // of the size of a node, where there are more than MANY
const MANY = 100;
const FRAME_MS = 8; // of steps between two pictures
const SHAPES = {
  plain: () => svg("circle", { class: "shape", r: 9 }),
  serves: () => svg("rect", { class: "shape", x: -9, y: -9, width: 18, height: 18, rx: 3 }),
  validates: () => svg("path", { class: "shape", d: "M0-12 12 0 0 12-12 0Z" }),
};

/** What the shapes and letters mean. */
export function legend() {
  const mark = (role, ...more) =>
    svg(
      "svg",
      { width: 26, height: 26, viewBox: "-16 -16 32 32", "aria-hidden": "true" },
      svg("g", { class: classesOf(role) }, shapeOf(role), letterOf(role), ...more),
    );
  const line = (name) =>
    svg(
      "svg",
      { width: 28, height: 10, viewBox: "0 0 28 10", "aria-hidden": "true" },
      svg("line", { class: `edge ${name}`, x1: 1, y1: 5, x2: 27, y2: 5 }),
    );
  const rows = [
    [mark({ known: true }), "node"],
    [mark({ known: true, me: true }), "this node"],
    [mark({ known: true, serves: true }), "serves models"],
    [mark({ known: true, serves: true, mines: true }), "miner"],
    [mark({ known: true, validates: true }), "validator"],
    [mark({ known: false }), "only named by others"],
    [mark({ known: true }, cutMark()), "the swarm splits without it"],
    [line("one"), "named by one end only"],
  ];
  return rows.map(([picture, words]) => {
    const row = document.createElement("span");
    row.append(picture, words);
    return row;
  });
}

function classesOf(role, selected = false) {
  const names = { me: role.me, serves: role.serves, validates: role.validates, unknown: !role.known, selected };
  return ["vertex", ...Object.keys(names).filter((name) => names[name])].join(" ");
}

function shapeOf(role) {
  const kind = role.validates ? "validates" : role.serves || role.mines ? "serves" : "plain";
  const ring = role.me ? svg("circle", { class: "ring", r: 14.5 }) : null;
  return svg("g", {}, svg("circle", { class: "halo", r: 19 }), ring, SHAPES[kind]());
}

function letterOf(role) {
  const letter = !role.known ? "?" : role.validates ? "V" : role.mines ? "M" : role.serves ? "S" : "";
  return svg("text", { class: "letter" }, letter);
}

function cutMark() {
  return svg("text", { class: "cut", x: 12, y: -7 }, "!");
}

/** A picture that settles and then stands still; nodes keep their places while the swarm changes. */
export class Drawing {
  constructor(place, select) {
    this.place = place;
    this.select = select;
    this.layout = new Layout();
    this.vertices = new Map();
    this.lines = [];
    this.frame = null;
    this.current = null;
    this.picture = svg("svg", { role: "group", "aria-label": "The swarm's graph; arrow keys go from node to node" });
    this.edges = svg("g");
    this.nodes = svg("g");
    this.picture.append(this.edges, this.nodes);
    place.replaceChildren(this.picture);
    this.picture.addEventListener("click", (event) => this.clicked(event));
    this.picture.addEventListener("keydown", (event) => this.pressed(event));
    new ResizeObserver(() => this.put()).observe(this.picture);
  }

  /** Words instead of a picture. */
  say(words) {
    this.place.textContent = words;
  }

  /** Draw a graph with one of its nodes selected. */
  show(graph, roles, splits, selected) {
    if (!this.picture.isConnected) this.place.replaceChildren(this.picture);
    const changed = this.layout.take(graph);
    const state = JSON.stringify([graph.edges, [...roles], [...splits.keys()], selected]);
    if (changed || state !== this.state) this.build(graph, roles, splits, selected);
    this.state = state;
    if (changed) this.settle();
  }

  build(graph, roles, splits, selected) {
    const focused = this.nodes.contains(document.activeElement);
    const few = graph.nodes.length <= FEW;
    const near = this.layout.near.get(selected) ?? new Set();
    this.current = selected;
    this.lines = graph.edges.map((edge) => this.line(edge, selected, graph.edges.length > DENSE));
    this.edges.replaceChildren(...this.lines.flatMap((one) => one.parts));
    this.vertices = new Map(graph.nodes.map((node) => {
      const role = roles.get(node.peer_id);
      const named = few || role.me || node.peer_id === selected || near.has(node.peer_id);
      return [node.peer_id, vertex(node, role, splits.has(node.peer_id), node.peer_id === selected, named)];
    }));
    this.nodes.replaceChildren(...this.vertices.values());
    for (const [id, role] of roles) if (role.me || id === selected) this.nodes.append(this.vertices.get(id));
    if (focused) this.vertices.get(selected)?.focus();
    this.put();
  }

  line(edge, selected, dense) {
    const lit = edge.a === selected || edge.b === selected;
    const names = ["edge", dense && "dense", edge.one_sided && "one", lit && "lit"].filter(Boolean);
    const stroke = svg("line", { class: names.join(" ") });
    const few = (this.layout.near.get(selected)?.size ?? 0) <= TIMED;
    const time = lit && few ? svg("text", { class: "time" }, rtt(edge.rtt_ms)) : null;
    return { edge, stroke, time, parts: time ? [stroke, time] : [stroke] };
  }

  /** Step and draw until all stands still; at once for whoever wants no motion. */
  settle() {
    cancelAnimationFrame(this.frame);
    const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
    const run = () => {
      const began = performance.now();
      let moves = true;
      while (moves && (calm || performance.now() - began < FRAME_MS)) moves = this.layout.step();
      this.put();
      this.picture.toggleAttribute("data-settled", !moves);
      if (moves) this.frame = requestAnimationFrame(run);
    };
    run();
  }

  /** Put everything where the layout has it. */
  put() {
    const { clientWidth: width, clientHeight: height } = this.picture;
    if (!width) return;
    this.picture.setAttribute("viewBox", `0 0 ${width} ${height}`);
    const at = this.layout.fitted(width, height, MARGIN);
    for (const { edge, stroke, time } of this.lines) {
      const [a, b] = [at.get(edge.a), at.get(edge.b)];
      const ends = { x1: a.x, y1: a.y, x2: b.x, y2: b.y };
      for (const [name, value] of Object.entries(ends)) stroke.setAttribute(name, value.toFixed(1));
      time?.setAttribute("x", ((a.x + b.x) / 2).toFixed(1));
      time?.setAttribute("y", ((a.y + b.y) / 2).toFixed(1));
    }
    const size = this.vertices.size > MANY ? ` scale(${SMALL})` : "";
    for (const [id, mark] of this.vertices) {
      const { x, y } = at.get(id);
      const own = id === this.current ? "" : size;
      mark.setAttribute("transform", `translate(${x.toFixed(1)} ${y.toFixed(1)})${own}`);
    }
  }

  clicked(event) {
    const mark = event.target.closest("[data-vertex]");
    if (mark) this.choose(mark.dataset.vertex);
  }

  choose(id) {
    this.select(id);
    this.vertices.get(id)?.focus();
  }

  pressed(event) {
    const steps = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 };
    if (!(event.key in steps)) return;
    event.preventDefault();
    const ids = [...this.vertices.keys()];
    this.choose(ids[(ids.indexOf(this.current) + steps[event.key] + ids.length) % ids.length]);
  }
}

function vertex(node, role, cuts, selected, named) {
  const words = [
    short(node.peer_id),
    role.me && "this node",
    role.validates && "validator",
    role.mines && "miner",
    role.serves && `serves ${node.models.join(", ")}`,
    !role.known && "only named by others",
    cuts && "the swarm splits without it",
  ].filter(Boolean).join(", ");
  return svg(
    "g",
    {
      class: classesOf(role, selected),
      "data-vertex": node.peer_id,
      role: "button",
      tabindex: selected ? 0 : -1,
      "aria-pressed": String(selected),
      "aria-label": words,
    },
    svg("title", {}, words),
    shapeOf(role),
    letterOf(role),
    cuts ? cutMark() : null,
    named ? svg("text", { class: "name", y: 25 }, short(node.peer_id)) : null,
  );
}
