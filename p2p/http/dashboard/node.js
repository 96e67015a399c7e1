// This node: how it is, in a line above the page and in figures; and what it has earned.

import { get, status } from "./api.js";
import { el, facts, peer, show, state, table } from "./dom.js";
import { amount, bytes, counted, duration, integer, percent, tokens } from "./format.js";
import { Panel } from "./panel.js";
import { roleOf } from "./subnet.js";

const ONE = 65_535; // one, as the ledger's proportions have it

export function begin() {
  const how = document.getElementById("how");
  let answered = true;
  const panel = new Panel(
    "node",
    2_000,
    async () => {
      try {
        const said = await status();
        if (!answered) document.dispatchEvent(new Event("yuma-back"));
        answered = true;
        return said;
      } catch (error) {
        answered = false;
        show(how, state("bad", error.status ? error.message : "The daemon does not answer"));
        throw error;
      }
    },
    (said, body) => {
      document.getElementById("network").textContent = said.network;
      show(how, condition(said));
      show(body, figures(said), bootstraps(said));
    },
  );
  panel.refresh();
  new Panel("earnings", 5_000, earned, drawEarned).refresh();
}

/** How the node is doing, in a word with its shape. */
function condition(said) {
  const chain = said.chain;
  if (chain?.stopped) return state("bad", `The ledger has stopped: ${chain.stopped}`);
  if (chain?.syncing) return state("busy", `Catching up: ${behind(said)}`);
  if (said.alone) return state("warn", "Alone: no peer is connected");
  if (!said.ready) return state("warn", `Not ready: ${said.why.join(", ")}`);
  return state("good", chain ? `In step, ${counted(said.peers, "peer")}` : counted(said.peers, "peer"));
}

function behind(said) {
  return said.behind ? `${counted(said.behind, "block")} behind` : "none behind";
}

function figures(said) {
  const chain = said.chain;
  return facts([
    ["Peers", `${said.peers}`, `${said.inbound} came to us, ${said.outbound} we went to`],
    ["Nodes in the swarm", `${said.swarm_nodes}`],
    chain && ["Block", integer(chain.height)],
    chain && ["Behind its peers", behind(said)],
    chain && ["Part in the chain", chain.voting ? "votes" : "follows"],
    ["Reachable", reachable(said.reach, said.inbound)],
    ["Up for", duration(said.uptime_s)],
    ["Memory", bytes(said.memory_bytes), "of the daemon, its models' workers aside"],
    ["Disk free", bytes(said.disk_free_bytes)],
    ["Serves", serves(said.models)],
    ["Answered", answered(said), "for others, since it is up"],
    ["Asked", integer(said.asked), "of others, since it is up"],
  ]);
}

/** What peers have found who tried to reach this node; or that some simply came. */
function reachable(reach, inbound) {
  const tried = reach.tried ? `, ${reach.reached} of ${reach.tried} peers` : "";
  if (reach.reachable === true) return `yes${tried}`;
  if (reach.reachable === false) return state("warn", `no${tried}`);
  return inbound ? "yes, peers came to it" : "not known";
}

function serves(models) {
  const running = models.reduce((sum, one) => sum + one.running, 0);
  const waiting = models.reduce((sum, one) => sum + one.waiting, 0);
  const names = models.map((one) => one.name).join(", ") || "no model";
  return running ? `${names}: ${running} under way${waiting ? `, ${waiting} wait` : ""}` : names;
}

function answered(said) {
  const words = integer(said.answered);
  return said.tokens_answered ? `${words}, ${counted(said.tokens_answered, "token")}` : words;
}

/** Bootstrap addresses that do not answer; of those that do there is nothing to say. */
function bootstraps(said) {
  const failing = said.bootstrap.filter((one) => one.error && one.state !== "connected");
  return failing.map((one) =>
    el("p", { class: "small" }, state("warn", `${one.address}: ${one.error}`)),
  );
}

async function earned() {
  const { chain } = await status();
  if (!chain) return { neurons: null };
  const [neurons, payments] = await Promise.all([get("/v0/neurons"), get("/v0/earnings")]);
  return { neurons, payments };
}

function drawEarned({ neurons, payments }, body) {
  if (neurons === null) {
    show(body, el("p", { class: "quiet" }, "This node follows no ledger: it serves for nothing."));
    return;
  }
  show(body, stake(neurons), places(neurons), queries(payments));
}

function stake(said) {
  if (!said.bound) {
    return el("p", { class: "quiet" }, "No wallet has staked on this node yet: yuma stake add AMOUNT");
  }
  const last = said.rows.reduce((sum, row) => sum + row.emission, 0);
  return facts([
    ["Staked on it", tokens(said.staked)],
    ["Last epochs gave", tokens(last), "the emission of the last epoch of each subnet it is in"],
    ["Standing", said.jailed ? state("bad", "jailed") : "good"],
  ]);
}

function places(said) {
  if (!said.rows.length) {
    return el("p", { class: "quiet small" }, "It is in no subnet: yuma mine, yuma validate");
  }
  const rows = said.rows.map((row) => ({
    cells: [
      `${row.netuid}`,
      `${row.uid}`,
      roleOf(row),
      percent(row.incentive / ONE),
      percent(row.dividends / ONE),
      amount(row.emission),
    ],
  }));
  const heads = ["Subnet", "UID", "As", "#Incentive", "#Dividends", "#Emission"];
  return table("This node in subnets", heads, rows);
}

/** What paid queries have brought. */
function queries(said) {
  if (!said.requests) {
    return el("p", { class: "quiet small" }, "No query that was paid for has been answered here.");
  }
  const rows = said.rows.map((row) => ({
    cells: [row.model, peer(row.peer_id), integer(row.requests), integer(row.tokens), amount(row.rao)],
  }));
  return [
    facts([
      ["Queries paid", integer(said.requests)],
      ["Earned by them", tokens(said.earned)],
      ["Claimed", tokens(said.claimed)],
      ["Still due", tokens(said.due)],
      ["Refused unpaid", integer(said.refused)],
    ]),
    said.problem ? el("p", { class: "small" }, state("warn", said.problem)) : null,
    table("Paid queries", ["Model", "Paid by", "#Queries", "#Tokens", "#Earned"], rows),
  ];
}
