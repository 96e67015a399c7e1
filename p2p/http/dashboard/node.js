// This node: how it is, in a line above the page and in figures; and what it has earned.

import { get, offers, status } from "./api.js";
import { el, facts, show, state, table } from "./dom.js";
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
  if (chain?.syncing) return state("busy", `Catching up: ${behind(chain)}`);
  if (said.alone) return state("warn", "Alone: no peer is connected");
  return state("good", chain ? `In step, ${counted(said.peers, "peer")}` : counted(said.peers, "peer"));
}

function behind(chain) {
  const blocks = Math.max(0, chain.best - chain.height);
  return blocks ? `${counted(blocks, "block")} behind` : "none behind";
}

function figures(said) {
  const chain = said.chain;
  const running = said.models.reduce((sum, one) => sum + one.running, 0);
  const waiting = said.models.reduce((sum, one) => sum + one.waiting, 0);
  return facts([
    ["Peers", `${said.peers}`, `${said.inbound} came to us, ${said.outbound} we went to`],
    ["Nodes in the swarm", `${said.swarm_nodes}`],
    chain && ["Block", integer(chain.height)],
    chain && ["Behind its peers", behind(chain)],
    chain && ["Part in the chain", chain.voting ? "votes" : "follows"],
    ["Reachable", reachable(said)],
    ["Up for", duration(said.uptime_s)],
    ["Memory", bytes(said.memory_bytes), "of the daemon, its models' workers aside"],
    ["Models served", said.models.map((one) => one.name).join(", ") || "none"],
    ["Under way", waiting ? `${running}, ${waiting} wait` : `${running}`],
    ["Answered", integer(said.answered), "for others, since it is up"],
    ["Asked", integer(said.asked), "of others, since it is up"],
  ]);
}

/** What peers have found who tried to reach this node. */
function reachable(said) {
  const found = said.reachable ?? null;
  if (found === null) return said.inbound ? "yes, peers came to it" : "not known";
  if (typeof found === "boolean") return found ? "yes" : "no";
  return typeof found === "object" ? String(found.state ?? "not known") : String(found);
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
  return {
    neurons: chain ? await get("/v0/neurons") : null,
    payments: (await offers("/v0/earnings")) ? await get("/v0/earnings") : null,
  };
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

/** What paid queries have brought, as far as the daemon says. */
function queries(payments) {
  if (!payments) return el("p", { class: "quiet small" }, "No paid query has been answered here.");
  const amounts = Object.entries(payments).filter(([, value]) => typeof value === "number");
  return facts(amounts.map(([name, value]) => [name.replaceAll("_", " "), integer(value)]));
}
