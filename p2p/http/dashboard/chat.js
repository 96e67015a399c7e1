// A conversation with a model of the swarm, over the door for applications: OpenAI's protocol,
// streamed, so that what is seen here is what any application gets.

import { get, headers, refusal, Refused } from "./api.js";
import { el, peer, show, state } from "./dom.js";
import { tokens } from "./format.js";

const MODELS_MS = 10_000;
const LETTERS_A_TOKEN = 3; // a low estimate, to keep a conversation within a model's context

let talk = []; // {role, content, meta, error}, the oldest first
let models = [];
let chosen = null; // the digest of a model; the one with most servers until one is chosen
let stopping = null; // an AbortController while an answer comes
const place = (id) => document.getElementById(id);

export function begin() {
  const text = place("chat-text");
  document.querySelector("#chat form").addEventListener("submit", (event) => {
    event.preventDefault();
    send();
  });
  text.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      send();
    }
  });
  document.querySelector("#chat .talk").addEventListener("click", (event) => {
    const button = event.target.closest("button[data-receipt]");
    if (button) keep(button.dataset.receipt);
  });
  place("chat-stop").addEventListener("click", () => stopping?.abort());
  place("chat-new").addEventListener("click", () => {
    stopping?.abort();
    talk = [];
    draw();
    text.focus();
  });
  place("chat-model").addEventListener("change", (event) => {
    chosen = event.target.value;
  });
  draw();
  choices();
  setInterval(choices, MODELS_MS);
  document.addEventListener("yuma-back", choices);
}

/** Begin a question to a model. */
export function ask(digest) {
  chosen = digest;
  place("chat-model").value = digest;
  place("chat").scrollIntoView();
  place("chat-text").focus();
}

/** The models that can be asked; what was chosen stays chosen. */
async function choices() {
  if (document.hidden) return;
  const said = await get("/v0/models?swarm=1").catch(() => null);
  if (said === null) return;
  models = said.models.filter((one) => one.kind === "text-generation");
  const select = place("chat-model");
  const options = models.map((one) => el("option", { value: one.digest }, one.name));
  show(select, options.length ? options : el("option", { value: "" }, "none is served"));
  const most = [...models].sort((a, b) => b.servers.length - a.servers.length)[0];
  const picked = models.find((one) => one.digest === chosen) ?? most;
  if (picked) select.value = picked.digest;
}

function send() {
  const text = place("chat-text");
  const model = models.find((one) => one.digest === place("chat-model").value);
  const content = text.value.trim();
  if (!content || stopping) return;
  talk.push({ role: "user", content });
  text.value = "";
  const answer = { role: "assistant", content: "", meta: {} };
  talk.push(answer);
  answered(model, answer);
}

async function answered(model, answer) {
  stopping = new AbortController();
  place("chat-stop").hidden = false;
  place("chat-send").disabled = true;
  draw();
  try {
    if (!model) throw new Refused("nobody in the swarm serves a model that talks");
    await stream(model, answer, stopping.signal);
  } catch (error) {
    answer.error = error.name === "AbortError" ? "stopped here" : error.message;
  }
  stopping = null;
  place("chat-stop").hidden = true;
  place("chat-send").disabled = false;
  draw();
}

/** Ask, and add to the answer what comes. Throws Refused, AbortError. */
async function stream(model, answer, signal) {
  const most = Number(place("chat-tokens").value) || 128;
  const seed = place("chat-seed").value;
  const body = {
    model: model.digest,
    messages: fitting(model.context, most),
    max_tokens: most,
    temperature: Number(place("chat-temperature").value),
    stream: true,
    stream_options: { include_usage: true },
    ...(seed && { seed: Number(seed) }),
  };
  const began = performance.now();
  const response = await fetch("/v1/chat/completions", {
    method: "POST",
    headers: headers({ "content-type": "application/json" }),
    body: JSON.stringify(body),
    signal,
  });
  if (!response.ok) throw await refusal(response);
  answer.meta.server = response.headers.get("x-yuma-server");
  for await (const chunk of events(response.body)) take(chunk, answer, began);
  if (!answer.meta.finish) throw new Refused("the answer broke off");
}

/** As much of the conversation, from its end, as the model's context probably holds. */
function fitting(context, most) {
  const said = talk.slice(0, -1).filter((one) => one.content && !one.error);
  let room = context > 0 ? (context - most) * LETTERS_A_TOKEN : Infinity;
  const kept = [];
  for (const { role, content } of said.reverse()) {
    room -= content.length;
    if (room < 0 && kept.length) break;
    kept.unshift({ role, content });
  }
  return kept;
}

/** The events of a stream of server-sent events, as JSON, up to [DONE]. */
async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const lines = (rest + value).split(/\r?\n/);
    rest = lines.pop();
    for (const line of lines) {
      if (!line.startsWith("data:")) continue;
      const data = line.slice(5).trim();
      if (data === "[DONE]") return;
      yield JSON.parse(data);
    }
  }
}

function take(chunk, answer, began) {
  if (chunk.error) throw new Refused(chunk.error.message ?? String(chunk.error));
  const meta = answer.meta;
  const choice = chunk.choices?.[0];
  const words = choice?.delta?.content ?? "";
  const now = performance.now();
  if (words && !meta.first) meta.first = now - began;
  answer.content += words;
  meta.ms = now - began;
  if (choice?.finish_reason) meta.finish = choice.finish_reason;
  if (chunk.usage) meta.tokens = chunk.usage.completion_tokens;
  if (chunk.yuma) Object.assign(meta, chunk.yuma);
  draw();
}

/** Hand out a receipt as a file, for: yuma receipts verify FILE */
async function keep(id) {
  const said = await get(`/v1/receipts/${encodeURIComponent(id)}`).catch(() => null);
  if (said === null) return;
  const file = new Blob([JSON.stringify(said, null, 2)], { type: "application/json" });
  const link = el("a", { href: URL.createObjectURL(file), download: `receipt-${id}.json` });
  link.click();
  URL.revokeObjectURL(link.href);
}

/** What is known of an answer beside its words. */
function about(meta) {
  const took = meta.ms - (meta.first ?? 0);
  return [
    meta.server && el("span", {}, "by ", peer(meta.server)),
    meta.tokens !== undefined && `${meta.tokens} tokens`,
    meta.first && `first after ${Math.round(meta.first)} ms`,
    meta.tokens > 1 && took > 0 && `${((1000 * (meta.tokens - 1)) / took).toFixed(1)} tokens/s`,
    meta.cost !== undefined && (meta.cost ? tokens(meta.cost) : "free"),
    meta.finish === "length" && "cut at its limit",
    meta.verified && `checked: ${meta.verified}`,
    meta.receipt && el("button", { class: "link", type: "button", "data-receipt": meta.receipt }, "keep its receipt"),
  ].filter(Boolean);
}

function draw() {
  const place = document.querySelector("#chat .talk");
  const follows = place.scrollHeight - place.scrollTop - place.clientHeight < 40;
  if (!talk.length) {
    show(place, el("p", { class: "quiet" }, "A question goes to a node that serves the model and has room; the answer comes word by word, signed."));
    return;
  }
  show(place, talk.map(said));
  if (follows) place.scrollTop = place.scrollHeight;
}

function said({ role, content, meta = {}, error }) {
  const waits = role === "assistant" && !content && !error && stopping;
  const parts = about(meta).flatMap((part, at) => (at ? [" · ", part] : [part]));
  return el(
    "div",
    { class: `said ${role}` },
    el("span", { class: "hidden" }, role === "user" ? "You asked: " : "The answer: "),
    el("div", { class: "words" }, waits ? "…" : content),
    error ? el("p", { class: "meta" }, state("warn", error)) : null,
    parts.length ? el("p", { class: "meta" }, parts) : null,
  );
}
