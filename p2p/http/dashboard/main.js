// The page: what belongs to no panel, and all panels begun.

import { setKey } from "./api.js";
import { begin as chain } from "./chain.js";
import { begin as chat } from "./chat.js";
import { begin as guides } from "./guides.js";
import { begin as models } from "./models.js";
import { begin as node } from "./node.js";
import { begin as subnet } from "./subnet.js";
import { begin as swarm } from "./swarm.js";

const THEMES = ["system", "light", "dark"];

function theme() {
  const button = document.getElementById("theme");
  const root = document.documentElement;
  const say = () => {
    button.textContent = `Theme: ${root.dataset.theme ?? "system"}`;
  };
  button.addEventListener("click", () => {
    const next = THEMES[(THEMES.indexOf(root.dataset.theme ?? "system") + 1) % THEMES.length];
    if (next === "system") {
      delete root.dataset.theme;
    } else {
      root.dataset.theme = next;
    }
    localStorage.setItem("yuma-theme", next);
    say();
  });
  say();
}

function key() {
  const form = document.getElementById("key");
  document.addEventListener("yuma-key-wanted", () => {
    form.hidden = false;
  });
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    form.hidden = true;
    setKey(document.getElementById("key-text").value.trim());
    form.reset();
  });
}

theme();
key();
for (const begin of [node, swarm, models, chat, chain, subnet, guides]) begin();
