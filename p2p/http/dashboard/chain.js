// The chain: its head, its rhythm, its last blocks, and what one of them holds.

import { get, status } from "./api.js";
import { el, facts, peer, short, show, state, svg, table } from "./dom.js";
import { amount, bytes, clock, counted, duration, integer, tokens } from "./format.js";
import { Panel } from "./panel.js";

const READ = 30; // blocks whose rhythm is drawn
const LISTED = 10;
const MOST_TALL = 4; // a gap as long as so many is drawn no taller

let opened = null; // a block that is shown in full

export function begin() {
  const panel = new Panel("chain", 2_000, load, draw);
  panel.body.addEventListener("click", async (event) => {
    const button = event.target.closest("button[data-block]");
    if (!button) return;
    const height = Number(button.dataset.block);
    opened = opened?.height === height ? null : await get(`/v0/chain/block?at=${height}`).catch(() => null);
    panel.refresh();
  });
  panel.refresh();
}

async function load() {
  const said = await status();
  if (!said.chain) return null;
  const [head, log] = await Promise.all([get("/v0/chain/head"), get(`/v0/chain/log?last=${READ}`)]);
  return { me: said.peer_id, head, blocks: log.blocks };
}

function draw(said, body) {
  if (said === null) {
    show(body, el("p", { class: "quiet" }, "This node follows no ledger. A home with one is made by: yuma init --network devnet"));
    return;
  }
  const { me, head, blocks } = said;
  const gaps = blocks.slice(0, -1).map((block, at) => (block.time - blocks[at + 1].time) / 1000);
  show(body, figures(head), ...rhythm(gaps), listed(blocks, me), opened ? inFull(opened, me) : "");
}

function figures(head) {
  const since = Math.max(0, (Date.now() - head.time) / 1000);
  const how = head.stopped
    ? state("bad", "stopped")
    : head.syncing
      ? state("busy", `catching up to ${integer(head.best)}`)
      : state("good", head.voting ? "votes" : "follows");
  return facts([
    ["Block", el("span", { id: "height" }, integer(head.height)), head.hash],
    ["Decided", `${duration(since)} ago`],
    ["This node", how],
    ["Epoch", integer(head.epoch)],
    ["Voters", integer(head.voters)],
    ["Transactions wait", integer(head.waiting)],
    ["Issued", tokens(head.issued)],
    ["Staked", tokens(head.staked)],
    ["Burned", tokens(head.burned)],
  ]);
}

/** The seconds between the last blocks, the newest on the right. */
function rhythm(gaps) {
  if (gaps.length < 3) return [];
  const most = Math.max(...gaps);
  const middle = [...gaps].sort((a, b) => a - b)[Math.floor(gaps.length / 2)];
  const top = Math.max(0.001, Math.min(most, MOST_TALL * middle));
  const bars = [...gaps].reverse().map((gap, at) => {
    const tall = Math.max(1, (30 * Math.min(gap, top)) / top);
    return svg("rect", { x: at * 10 + 1, y: (32 - tall).toFixed(1), width: 8, height: tall.toFixed(1) });
  });
  const words = `Between the last ${gaps.length + 1} blocks: ${middle.toFixed(2)} s in the middle, ${most.toFixed(2)} s at most`;
  return [
    svg("svg", { class: "rhythm", viewBox: `0 0 ${gaps.length * 10} 32`, preserveAspectRatio: "none", "aria-hidden": "true" }, bars),
    el("p", { class: "quiet small" }, words),
  ];
}

function listed(blocks, me) {
  const rows = blocks.slice(0, LISTED).map((block) => ({
    class: block.height === opened?.height ? "mine" : null,
    cells: [
      el("button", { class: "link", type: "button", "data-block": block.height, "aria-expanded": String(block.height === opened?.height) }, integer(block.height)),
      clock(block.time),
      integer(block.transactions),
      block.view ? `${block.view}` : "0",
      peer(block.proposer, me),
      el("span", { class: "mono", title: block.hash }, block.hash.slice(0, 10)),
    ],
  }));
  return table("The last blocks", ["Block", "Time", "#Transactions", "#View", "Proposed by", "Hash"], rows);
}

function inFull(block, me) {
  const rows = block.transactions.map((one) => ({
    cells: [
      one.kind,
      el("span", { class: "mono", title: one.sender }, short(one.sender)),
      amount(one.fee),
      el("span", { class: "mono", title: one.id }, one.id.slice(0, 10)),
    ],
  }));
  const about = `Block ${integer(block.height)}: ${bytes(block.bytes)}, epoch ${block.epoch}, decided in view ${block.decided_in_view}, ${counted(block.signers, "signer")}, proposed by `;
  return el(
    "div",
    { class: "block" },
    el("p", { class: "small" }, about, peer(block.proposer, me)),
    el("p", { class: "mono quiet" }, block.hash),
    rows.length
      ? table("Its transactions", ["Transaction", "Sender", "#Fee, tokens", "Id"], rows)
      : el("p", { class: "quiet small" }, "It holds no transaction."),
  );
}
