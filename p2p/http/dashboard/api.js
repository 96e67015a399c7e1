// What the daemon behind this page answers: GET of JSON, asked again and again while it is looked at.

const TIMEOUT_MS = 15_000;
const KEY = "yuma-key"; // in sessionStorage: a key goes with the tab

/** A refusal of the daemon, or none at all (status 0): one sentence and perhaps a hint. */
export class Refused extends Error {
  constructor(sentence, hint = "", status = 0) {
    super(sentence);
    this.hint = hint;
    this.status = status;
  }
}

/** Headers of a request, with the key that was given to this page, if any. */
export function headers(more = {}) {
  const key = sessionStorage.getItem(KEY);
  return key ? { ...more, authorization: `Bearer ${key}` } : more;
}

export function setKey(key) {
  sessionStorage.setItem(KEY, key);
  document.dispatchEvent(new Event("yuma-back"));
}

/** The JSON at a path. Throws Refused. */
export async function get(path) {
  let response;
  try {
    response = await fetch(path, { headers: headers(), signal: AbortSignal.timeout(TIMEOUT_MS) });
  } catch {
    throw new Refused("the daemon does not answer");
  }
  if (!response.ok) throw await refusal(response);
  return response.json();
}

/** What an answer of 400 or more says; the local API and OpenAI's each have a form for it. */
export async function refusal(response) {
  if (response.status === 401) document.dispatchEvent(new Event("yuma-key-wanted"));
  const said = await response.json().catch(() => ({}));
  const sentence = said.error?.message ?? said.error ?? `the daemon answered ${response.status}`;
  return new Refused(String(sentence), String(said.hint ?? ""), response.status);
}

const asked = new Map();

/** The same, shared by all that ask within some time. */
export function shared(path, forMs) {
  const kept = asked.get(path);
  if (kept && performance.now() - kept.at < forMs) return kept.answer;
  const answer = get(path);
  asked.set(path, { at: performance.now(), answer });
  answer.catch(() => asked.delete(path));
  return answer;
}

/** How the node is doing, at most this old. */
export const status = () => shared("/v0/status", 1_500);
