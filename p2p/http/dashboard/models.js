// The models of the swarm: who serves each, how fast, for how much.

import { ask } from "./chat.js";
import { get, shared, status } from "./api.js";
import { el, peer, show, state, table } from "./dom.js";
import { count, counted, duration, price, rtt } from "./format.js";
import { Panel } from "./panel.js";

const DIGEST_LETTERS = 12; // enough to name a model in a swarm
const MOST_SERVERS = 20; // of one model, the least busy first

export function begin() {
  const panel = new Panel("models", 5_000, load, draw);
  panel.body.addEventListener("click", (event) => {
    const button = event.target.closest("button[data-model]");
    if (button) ask(button.dataset.model);
  });
  panel.refresh();
}

async function load() {
  const [said, models, peers] = await Promise.all([
    status(),
    get("/v0/models?swarm=1"),
    shared("/v0/swarm/peers", 3_000),
  ]);
  const times = new Map(peers.peers.map((one) => [one.peer_id, one.rtt_ms]));
  return { me: said.peer_id, models: models.models, times };
}

function draw({ me, models, times }, body) {
  if (!models.length) {
    show(body, el("p", { class: "quiet" }, "Nobody in the swarm serves a model. This node does after: yuma serve docs-gpt"));
    return;
  }
  show(body, models.map((model) => row(model, me, times)));
}

function row(model, me, times) {
  const facts = [
    model.kind,
    `${count(model.parameters)} parameters`,
    model.context > 0 && `context ${model.context}`,
    price(model.price),
  ].filter(Boolean).join(" · ");
  const servers = [...model.servers].sort((a, b) => a.queue / a.slots - b.queue / b.slots);
  const heads = ["Server", "Load", "#Tokens/s", "#Round trip", "#Heard from"];
  const rows = servers.slice(0, MOST_SERVERS).map((one) => ({
    class: one.me ? "mine" : null,
    cells: [
      peer(one.peer_id, me),
      loadOf(one),
      one.speed ? one.speed.toFixed(1) : "–",
      one.me ? "here" : rtt(times.get(one.peer_id)),
      `${duration(one.age_s)} ago`,
    ],
  }));
  const more = servers.length - rows.length;
  return el(
    "article",
    { class: "model" },
    el(
      "header",
      {},
      el("h3", {}, model.name),
      el("span", { class: "mono quiet", title: model.digest }, model.digest.slice(0, DIGEST_LETTERS)),
      model.kind === "text-generation"
        ? el("button", { type: "button", "data-model": model.digest }, "Ask it")
        : null,
    ),
    el("p", { class: "quiet small" }, facts),
    table(`Servers of ${model.name}`, heads, rows),
    more > 0 ? el("p", { class: "quiet small" }, `and ${counted(more, "server")} more`) : null,
  );
}

function loadOf(server) {
  const words = `${server.queue} of ${server.slots}`;
  return state(server.queue >= server.slots ? "warn" : "good", server.queue > server.slots ? `${words}, queue` : words);
}
