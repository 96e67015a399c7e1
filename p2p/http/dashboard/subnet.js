// A subnet: what it pays, and what its last epoch decided of each neuron, and why.

import { get, shared, status } from "./api.js";
import { bar, el, facts, peer, show, table } from "./dom.js";
import { amount, counted, integer, percent, tokens } from "./format.js";
import { Panel } from "./panel.js";

const WHOLE = 2 ** 32; // one, of a subnet's share
const MOST_ROWS = 256; // neurons shown, those with the most emission first

let chosen = null; // a netuid; the first subnet as long as nothing was chosen
let placed = []; // what the neurons of the subnet shown are
let asked = null; // the uid of which is said why
let epoch = { netuid: null, height: null, said: null };

/** The neurons of the subnet shown: {hotkey, netuid, uid, role}. */
export const neurons = () => placed;

export function begin() {
  const panel = new Panel("subnet", 4_000, load, draw);
  document.getElementById("subnet-choice").addEventListener("change", (event) => {
    chosen = Number(event.target.value);
    asked = null;
    show(panel.body.querySelector(".why"));
    panel.refresh();
  });
  panel.body.addEventListener("click", (event) => {
    const button = event.target.closest("button[data-uid]");
    if (button) why(panel, Number(button.dataset.uid));
  });
  panel.refresh();
}

async function load() {
  const said = await status();
  if (!said.chain) return null;
  const { subnets, height } = await get("/v0/subnets");
  const one = subnets.find((row) => row.netuid === chosen) ?? subnets[0];
  if (!one) return { subnets };
  const whole = await shared(`/v0/subnets/one?netuid=${one.netuid}`, 3_000);
  return { me: said.peer_id, subnets, height, one, whole, done: await decided(one, whole) };
}

/** What the last epoch decided: asked once an epoch, as it is computed again; null before the first. */
async function decided(one, whole) {
  if (!whole.rows.length || !one.last_epoch) return null;
  if (epoch.netuid !== one.netuid || epoch.height !== one.last_epoch) {
    const said = await get(`/v0/metagraph?netuid=${one.netuid}`);
    epoch = { netuid: one.netuid, height: one.last_epoch, said };
  }
  return epoch.said;
}

/**
 * What a neuron is. Who has said weights since it registered is a validator, and who is paid under a permit
 * for nothing that a miner does; a permit alone has many a miner.
 */
export function roleOf(row) {
  const isPaidToJudge = row.validator && row.emission > 0 && row.incentive === 0;
  return row.dividends > 0 || row.updated > row.registered || isPaidToJudge ? "validator" : "miner";
}

function draw(said, body) {
  const place = body.querySelector(".shown");
  const label = body.querySelector(".choice");
  if (!said?.one) {
    seat([]);
    label.hidden = true;
    const words = said === null ? "This node follows no ledger." : "There is no subnet yet: yuma subnet create";
    show(place, el("p", { class: "quiet" }, words));
    return;
  }
  const { me, subnets, one, whole, done } = said;
  label.hidden = subnets.length < 2;
  show(
    document.getElementById("subnet-choice"),
    subnets.map((row) => el("option", { value: row.netuid, selected: row.netuid === one.netuid }, `subnet ${row.netuid}`)),
  );
  document.getElementById("subnet-title").textContent = `Subnet ${one.netuid}${whole.task ? `: ${whole.task}` : ""}`;
  seat(whole.rows.map((row) => ({ hotkey: row.hotkey, netuid: one.netuid, uid: row.uid, role: roleOf(row) })));
  show(place, figures(said), ...lastEpoch(done), metagraph(whole, done, me));
}

/** Know what the neurons are, and tell the graph where that is new. */
function seat(rows) {
  const same = JSON.stringify(rows) === JSON.stringify(placed);
  placed = rows;
  if (!same) document.dispatchEvent(new Event("yuma-neurons"));
}

function figures({ one, height }) {
  const due = one.next_epoch - height;
  return facts([
    ["Neurons", `${integer(one.neurons)} of ${integer(one.max_uids)}`],
    ["A place costs", tokens(one.price)],
    ["Share of emission", percent(one.share / WHOLE)],
    ["In its pot", tokens(one.pot)],
    ["Next epoch", due > 0 ? `in ${counted(due, "block")}` : "now", `block ${one.next_epoch}, every ${one.tempo}`],
  ]);
}

function lastEpoch(done) {
  if (done === null) return [el("p", { class: "quiet small" }, "It has had no epoch yet.")];
  const words = `The epoch of block ${integer(done.height)} gave ${tokens(done.miners)} to miners, ${tokens(done.validators)} to validators, ${tokens(done.owner)} to its owner.`;
  return [el("p", { class: "small block" }, words)];
}

/** The neurons as the last epoch left them; those who came since as they are. */
function metagraph(whole, done, me) {
  const decided = new Map((done?.rows ?? []).map((row) => [row.uid, row]));
  const rows = whole.rows
    .map((row) => ({ row, last: decided.get(row.uid)?.hotkey === row.hotkey ? decided.get(row.uid) : null }))
    .sort((a, b) => (b.last?.emission ?? 0) - (a.last?.emission ?? 0) || a.row.uid - b.row.uid)
    .slice(0, MOST_ROWS)
    .map(({ row, last }) => ({ class: row.hotkey === me ? "mine" : null, cells: cells(row, last, me) }));
  const heads = ["UID", "Node", "As", "#Incentive", "#Dividends", "#Trust", "#Emission", "#Stake", "Models", ""];
  return table("Metagraph", heads, rows);
}

function cells(row, last, me) {
  const part = (text) => (last ? el("span", {}, percent(Number(text)), bar(Number(text))) : "–");
  return [
    `${row.uid}`,
    peer(row.hotkey, me),
    roleOf(row) === "validator" && !row.validator ? "validator, no permit" : roleOf(row),
    part(last?.incentive),
    part(last?.dividends),
    last ? percent(Number(last.trust)) : "–",
    last ? amount(last.emission) : "new",
    amount(row.staked),
    (last?.models ?? []).join(", "),
    last ? el("button", { class: "link", type: "button", "data-uid": row.uid }, "Why?") : "",
  ];
}

/** Say why a neuron earned what it did; asked again, say nothing. */
async function why(panel, uid) {
  const place = panel.body.querySelector(".why");
  if (asked === uid) {
    asked = null;
    show(place);
    return;
  }
  asked = uid;
  show(place, el("p", { class: "quiet" }, "Computing the epoch again"));
  try {
    const said = await get(`/v0/explain?netuid=${epoch.netuid}&uid=${uid}`);
    if (asked === uid) show(place, ...reasons(said, uid));
  } catch (error) {
    show(place, el("p", { class: "quiet" }, error.message));
  }
}

function reasons(said, uid) {
  const part = (name, one) => [
    el("p", {}, `As a ${name} it earned ${tokens(one.emission)}, because`),
    el("ul", {}, one.reasons.map((words) => el("li", {}, String(words)))),
  ];
  return [
    el("h3", {}, `UID ${uid} in the epoch of block ${integer(said.height)}`),
    ...part("miner", said.miner),
    ...part("validator", said.validator),
  ];
}
