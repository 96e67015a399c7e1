// The swarm: who is connected to whom, drawn and as a table, and one peer in detail.

import { get, shared, status } from "./api.js";
import { Drawing, legend } from "./drawing.js";
import { el, peer, short, show, state, table } from "./dom.js";
import { around, measures } from "./force.js";
import { counted, duration, integer, rtt } from "./format.js";
import { Panel } from "./panel.js";
import { neurons } from "./subnet.js";

const MOST_DRAWN = 256;
const MOST_SPLITS = 5;

let selected = null; // a peer id; this node as long as nothing was chosen
let latest = null;
let drawing = null;

export function begin() {
  const section = document.getElementById("swarm");
  drawing = new Drawing(section.querySelector(".drawing"), select);
  show(section.querySelector(".legend"), legend());
  new Panel("swarm", 5_000, load, draw).refresh();
  document.addEventListener("yuma-neurons", () => latest && draw(latest));
  document.addEventListener("click", (event) => {
    const button = event.target.closest("button[data-peer]");
    if (button) select(button.dataset.peer, !section.contains(button));
  });
}

/** Show a peer in detail; from another panel also bring it into view. */
function select(id, scroll = false) {
  selected = id;
  if (latest) redraw();
  if (scroll) document.getElementById("swarm").scrollIntoView();
}

async function load() {
  const said = await status();
  const [graph, peers, committee] = await Promise.all([
    get("/v0/swarm/graph"),
    get("/v0/swarm/peers"),
    said.chain ? shared("/v0/chain/committee", 10_000) : null,
  ]);
  return { me: said.peer_id, height: said.chain?.height, graph, peers: peers.peers, committee };
}

let measured = { shape: "", measures: null };

/** The measures of a graph, computed again only where its shape is another. */
function measuresOf(graph) {
  const shape = JSON.stringify([graph.nodes.length, graph.edges.map((edge) => [edge.a, edge.b])]);
  if (shape !== measured.shape) measured = { shape, measures: measures(graph) };
  return measured.measures;
}

function draw(said) {
  latest = { ...said, measures: measuresOf(said.graph), roles: rolesOf(said) };
  redraw();
}

/** What each node is, in words: of its models, of the ledger's committee and of the subnet shown. */
function rolesOf({ graph, me, committee }) {
  const voters = new Set((committee?.members ?? []).filter((one) => one.weight).map((one) => one.peer_id));
  const placed = new Map(neurons().map((row) => [row.hotkey, row]));
  const of = (node) => {
    const neuron = placed.get(node.peer_id);
    return {
      me: node.peer_id === me,
      known: node.known,
      serves: node.models.length > 0,
      validates: neuron?.role === "validator",
      mines: neuron?.role === "miner",
      votes: voters.has(node.peer_id),
      neuron,
    };
  };
  return new Map(graph.nodes.map((node) => [node.peer_id, of(node)]));
}

function redraw() {
  const { graph, me, measures: found, roles } = latest;
  const section = document.getElementById("swarm");
  if (!roles.has(selected)) selected = me;
  show(section.querySelector(".summary"), summary(graph, found));
  show(section.querySelector(".warnings"), warnings(graph, found));
  show(section.querySelector(".detail"), detail(latest, selected));
  show(section.querySelector(".list > div"), list(latest));
  if (graph.nodes.length <= MOST_DRAWN) {
    drawing.show(graph, roles, found.splits, selected);
  } else {
    drawing.say(`${integer(graph.nodes.length)} nodes are too many to draw: see the table.`);
  }
}

function summary(graph, found) {
  return [
    counted(graph.nodes.length, "node"),
    counted(graph.edges.length, "edge"),
    counted(found.components, "component"),
    `diameter ${found.diameter}`,
    `mean degree ${found.meanDegree.toFixed(1)}`,
  ].join(", ");
}

function warnings(graph, found) {
  const one = graph.edges.filter((edge) => edge.one_sided).length;
  const unknown = graph.nodes.filter((node) => !node.known).length;
  const worst = [...found.splits].sort((a, b) => a[1][0] - b[1][0]).slice(0, MOST_SPLITS);
  return [
    found.components > 1 && "The swarm is in parts that nothing joins",
    ...worst.map(([id, parts]) => `If ${short(id)} goes, the swarm splits: ${parts.join(" + ")}`),
    one > 0 && `${counted(one, "edge")} named by only one of its ends`,
    unknown > 0 && `${counted(unknown, "node")} only named by others, nothing was heard from it`,
  ].filter(Boolean).map((words) => el("p", {}, state("warn", words)));
}

function edgesOf(graph, id) {
  return graph.edges
    .filter((edge) => edge.a === id || edge.b === id)
    .map((edge) => ({ ...edge, other: edge.a === id ? edge.b : edge.a }))
    .sort((a, b) => (a.rtt_ms ?? Infinity) - (b.rtt_ms ?? Infinity));
}

/** One node with all that is known of it. */
function detail({ graph, me, height, peers, roles, measures: found }, id) {
  const node = graph.nodes.find((one) => one.peer_id === id);
  const role = roles.get(id);
  const link = peers.find((one) => one.peer_id === id);
  const rows = edgesOf(graph, id).map((edge) => ({
    cells: [
      [peer(edge.other, me), edge.one_sided ? state("warn", ` named by ${short(edge.by)} only`) : ""],
      rtt(edge.rtt_ms),
    ],
  }));
  return [
    el("h3", {}, id === me ? `${short(id)}, this node` : short(id)),
    el("p", { class: "id" }, id),
    el("ul", { class: "tags" }, tags(role, found.splits.has(id)).map((tag) => el("li", {}, tag))),
    el("dl", { class: "tight" }, pairs(node, role, height, link).map(([name, value]) => [
      el("dt", {}, name), el("dd", {}, value),
    ])),
    table(`Neighbours of ${short(id)}`, ["Neighbour", "#Round trip"], rows),
  ];
}

function tags(role, cuts) {
  const neuron = role.neuron;
  return [
    role.me && "this node",
    !role.known && "only named by others",
    role.serves && "serves models",
    role.validates && `validator of subnet ${neuron.netuid}, uid ${neuron.uid}`,
    role.mines && `miner of subnet ${neuron.netuid}, uid ${neuron.uid}`,
    role.votes && "votes on blocks",
    cuts && "the swarm splits without it",
  ].filter(Boolean);
}

function pairs(node, role, height, link) {
  return [
    node.known && ["Program", node.agent],
    node.known && !role.me && ["Heard from", `${duration(node.age_s)} ago`],
    node.models.length > 0 && ["Models", node.models.join(", ")],
    height !== undefined && node.known && ["Block", integer(role.me ? height : node.height)],
    link && ["Connected", `${link.direction === "in" ? "it came to us" : "we went to it"}, ${duration(link.connected_s)}`],
    link && ["Conduct", `score ${link.score}`],
    node.addresses.length > 0 && ["Address", node.addresses.join(" ")],
  ].filter(Boolean);
}

function list({ graph, me, roles }) {
  const near = around(graph);
  const rows = [...graph.nodes]
    .sort((a, b) => (b.peer_id === me) - (a.peer_id === me))
    .slice(0, MOST_DRAWN)
    .map((node) => ({
      class: node.peer_id === me ? "mine" : null,
      cells: [
        peer(node.peer_id, me),
        tags(roles.get(node.peer_id), false).join(", "),
        `${near.get(node.peer_id).size}`,
        node.known ? integer(node.height) : "–",
        node.models.join(", "),
        node.agent,
        node.known ? `${duration(node.age_s)} ago` : "–",
      ],
    }));
  return table("Nodes", ["Node", "Is", "#Peers", "#Block", "Models", "Program", "#Heard from"], rows);
}
