// The swarm as a graph: its measures, and places for its nodes. Values only, no page.

const START = 0.25; // how far a node may go in a step when all is new, in springs' lengths
const AGAIN = 0.06; // and when only a little has changed
const COOLING = 0.975;
const COLD = 0.002;
const STRETCH = 1.7; // of one direction over the other, at most, to fill a box
const LONGEST = 200; // pixels of a spring: few nodes do not go into the corners
const GRAVITY = 0.06; // keeps parts that nothing joins in view

/** For each node the ids of those it has an edge to. */
export function around(graph) {
  const near = new Map(graph.nodes.map((node) => [node.peer_id, new Set()]));
  for (const edge of graph.edges) {
    near.get(edge.a).add(edge.b);
    near.get(edge.b).add(edge.a);
  }
  return near;
}

/** Hops from a node to all that it reaches, in a graph without one node. */
function hops(near, from, without = null) {
  const found = new Map([[from, 0]]);
  for (const [id, distance] of found) {
    for (const next of near.get(id)) {
      if (next !== without && !found.has(next)) found.set(next, distance + 1);
    }
  }
  return found;
}

function components(near, ids, without = null) {
  const parts = [];
  const seen = new Set();
  for (const id of ids) {
    if (id === without || seen.has(id)) continue;
    const part = [...hops(near, id, without).keys()];
    part.forEach((one) => seen.add(one));
    parts.push(part);
  }
  return parts.sort((a, b) => b.length - a.length);
}

/** What a graph is like as a whole: its components, the largest one's diameter, its mean degree,
 *  and the nodes without which it falls apart, with the sizes of the parts that are left. */
export function measures(graph) {
  const near = around(graph);
  const parts = components(near, near.keys());
  const largest = parts[0] ?? [];
  const splits = new Map();
  for (const part of parts) {
    for (const id of part) {
      const left = components(near, part, id);
      if (left.length > 1) splits.set(id, left.map((one) => one.length));
    }
  }
  return {
    components: parts.length,
    diameter: Math.max(0, ...largest.map((id) => Math.max(...hops(near, id).values()))),
    meanDegree: graph.nodes.length ? (2 * graph.edges.length) / graph.nodes.length : 0,
    splits,
  };
}

/** Places of nodes: those that are near each other in the graph are near here. Nodes push each other
 *  away, edges pull; both grow weaker until all stands still, and what stood stays where it was. */
export class Layout {
  constructor() {
    this.places = new Map();
    this.near = new Map();
    this.shape = "";
    this.heat = 0;
  }

  /** Take in a graph; whether it differs from the one before. */
  take(graph) {
    const ids = graph.nodes.map((node) => node.peer_id);
    const shape = JSON.stringify([ids, graph.edges.map((edge) => [edge.a, edge.b])]);
    if (shape === this.shape) return false;
    this.shape = shape;
    this.near = around(graph);
    const before = this.places;
    this.places = new Map();
    ids.forEach((id, at) => this.places.set(id, before.get(id) ?? this.first(id, at, before)));
    this.heat = before.size ? AGAIN : START;
    if (ids.some((id) => !before.has(id)) && before.size) this.heat = 2 * AGAIN;
    return true;
  }

  /** Where a new node begins: beside one that it knows, else on a spiral. */
  first(id, at, before) {
    const angle = at * 2.399963; // the golden angle: no two lie in one direction
    const known = [...this.near.get(id)].map((other) => before.get(other)).find(Boolean);
    const from = known ?? { x: 0, y: 0 };
    const far = known ? 0.5 : 0.5 * Math.sqrt(at + 1);
    return { x: from.x + far * Math.cos(angle), y: from.y + far * Math.sin(angle) };
  }

  /** One step; whether anything still moves. */
  step() {
    if (this.heat < COLD) return false;
    const all = [...this.places.entries()].map(([id, place]) => ({ id, place, dx: 0, dy: 0 }));
    const index = new Map(all.map((one) => [one.id, one]));
    for (let i = 0; i < all.length; i += 1) {
      for (let j = i + 1; j < all.length; j += 1) push(all[i], all[j]);
    }
    for (const one of all) {
      for (const other of this.near.get(one.id)) {
        if (one.id < other) this.pull(one, index.get(other));
      }
    }
    for (const one of all) this.move(one);
    this.heat *= COOLING;
    return true;
  }

  pull(a, b) {
    const dx = b.place.x - a.place.x;
    const dy = b.place.y - a.place.y;
    const fewest = Math.min(this.near.get(a.id).size, this.near.get(b.id).size);
    const force = (2 * Math.hypot(dx, dy)) / Math.sqrt(fewest);
    a.dx += dx * force;
    a.dy += dy * force;
    b.dx -= dx * force;
    b.dy -= dy * force;
  }

  move(one) {
    const dx = one.dx - GRAVITY * one.place.x * Math.sqrt(this.places.size);
    const dy = one.dy - GRAVITY * one.place.y * Math.sqrt(this.places.size);
    const length = Math.hypot(dx, dy) || 1;
    const far = Math.min(length * 0.1, this.heat);
    one.place.x += (dx / length) * far;
    one.place.y += (dy / length) * far;
  }

  /** All places, stretched into a box that keeps a margin. */
  fitted(width, height, margin) {
    const all = [...this.places.values()];
    const [left, right] = ends(all.map((one) => one.x));
    const [top, bottom] = ends(all.map((one) => one.y));
    const across = (width - 2 * margin) / Math.max(right - left, 0.5);
    const down = (height - 2 * margin) / Math.max(bottom - top, 0.5);
    const x = Math.min(across, STRETCH * down, LONGEST);
    const y = Math.min(down, STRETCH * across, LONGEST);
    const middle = [(left + right) / 2, (top + bottom) / 2];
    const put = ([id, place]) => [
      id,
      { x: width / 2 + (place.x - middle[0]) * x, y: height / 2 + (place.y - middle[1]) * y },
    ];
    return new Map([...this.places.entries()].map(put));
  }
}

function push(a, b) {
  const dx = a.place.x - b.place.x;
  const dy = a.place.y - b.place.y;
  const square = Math.max(dx * dx + dy * dy, 1e-4);
  a.dx += dx / square;
  a.dy += dy / square;
  b.dx -= dx / square;
  b.dy -= dy / square;
}

function ends(values) {
  return values.length ? [Math.min(...values), Math.max(...values)] : [0, 0];
}
