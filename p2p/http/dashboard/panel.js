// A panel: asks in its own rhythm while the page is looked at, says how old what it shows is, and
// what is wrong when no answer comes.

import { el, show, state } from "./dom.js";
import { duration } from "./format.js";

const MOST_MS = 10_000; // between two tries of what fails
const panels = [];

export class Panel {
  /** `load` gets what `draw` shows in the panel's body; `everyMs` lies between two of them. */
  constructor(id, everyMs, load, draw) {
    this.section = document.getElementById(id);
    this.body = this.section.querySelector(".body");
    this.everyMs = everyMs;
    this.load = load;
    this.draw = draw;
    this.failures = 0;
    this.shownAt = null;
    this.error = null;
    this.timer = null;
    this.busy = false;
    this.again = false; // asked for while an answer was still to come
    panels.push(this);
  }

  /** Ask now, and from then on. */
  async refresh() {
    clearTimeout(this.timer);
    this.again = this.busy;
    if (this.busy || document.hidden) return;
    this.busy = true;
    try {
      this.draw(await this.load(), this.body);
      this.failures = 0;
      this.error = null;
      this.shownAt = performance.now();
    } catch (error) {
      this.failures += 1;
      this.error = error;
    }
    this.busy = false;
    this.mark();
    this.timer = setTimeout(() => this.refresh(), this.again ? 0 : this.wait());
  }

  /** Milliseconds until the next question: longer with each failure, but for what is asked rarely. */
  wait() {
    if (!this.failures) return this.everyMs;
    return Math.min(MOST_MS, this.everyMs * 2 ** Math.min(this.failures, 5));
  }

  /** Say how old it is, and what is wrong. */
  mark() {
    const place = this.section.querySelector(".age");
    const age = this.shownAt === null ? null : (performance.now() - this.shownAt) / 1000;
    this.section.classList.toggle("stale", this.error !== null);
    if (this.error === null) {
      show(place, age === null ? "asking" : age < 2 ? "now" : `${duration(age)} ago`);
      return;
    }
    const last = age === null ? "" : `; this is of ${duration(age)} ago`;
    const hint = this.error.hint ? el("span", { class: "hint" }, ` (${this.error.hint})`) : "";
    show(place, state("bad", `${this.error.message}${last}`), hint);
  }
}

/** Ask everything at once: the page is looked at again, or the daemon is back. */
function refreshAll() {
  for (const panel of panels) panel.refresh();
}

document.addEventListener("visibilitychange", refreshAll);
document.addEventListener("yuma-back", refreshAll);
setInterval(() => {
  if (!document.hidden) panels.forEach((panel) => panel.mark());
}, 1_000);
