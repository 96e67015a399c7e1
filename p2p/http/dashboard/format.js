// Values as text, for people.

const TOKEN = 1e9; // rao; beyond 2**53 rao a number is off by a few rao, which is not shown

/** Rao as a number of tokens: as many digits as tell something. */
export function amount(rao) {
  const value = rao / TOKEN;
  const digits = value >= 1_000 ? 1 : value >= 0.001 || value === 0 ? 4 : 9;
  return value.toLocaleString("en", { maximumFractionDigits: digits });
}

/** The same with its unit. */
export function tokens(rao) {
  return `${amount(rao)} tokens`;
}

/** A price of a model, in rao per 1,000 tokens. */
export function price(rao) {
  return rao === 0 ? "free" : `${tokens(rao)} per 1,000`;
}

export function integer(value) {
  return value.toLocaleString("en");
}

/** A part of one in percent. */
export function percent(part) {
  return `${(100 * part).toFixed(1)} %`;
}

export function bytes(count) {
  return scaled(count, ["B", "kB", "MB", "GB", "TB"]);
}

export function count(value) {
  return scaled(value, ["", "k", "M", "G", "T"]).trim();
}

function scaled(value, units) {
  let at = 0;
  while (value >= 1000 && at < units.length - 1) {
    value /= 1000;
    at += 1;
  }
  return `${at === 0 ? value : value.toFixed(1)} ${units[at]}`;
}

/** A duration in its largest unit. */
export function duration(seconds) {
  for (const [unit, length] of [["d", 86_400], ["h", 3_600], ["min", 60]]) {
    if (seconds >= 2 * length) return `${Math.floor(seconds / length)} ${unit}`;
  }
  return `${Math.max(0, Math.round(seconds))} s`;
}

export function rtt(ms) {
  return ms === null || ms === undefined ? "–" : `${ms.toFixed(1)} ms`;
}

/** The time of day of Unix milliseconds, here. */
export function clock(ms) {
  return new Date(ms).toLocaleTimeString("en", { hour12: false });
}

/** "1 node", "2 nodes". */
export function counted(value, noun) {
  return value === 1 ? `1 ${noun}` : `${integer(value)} ${noun}s`;
}
