// Wakes each part of the page when Gradio has drawn it, and listens to the keyboard.
import { $ } from "./common.js";
import * as player from "./player.js";
import * as search from "./search.js";
import * as localize from "./localize.js";
import * as library from "./library.js";

const parts = { "vs-search": search.start, "vs-localize": localize.start, "vs-library": library.start };

function wake() {
  for (const [id, start] of Object.entries(parts)) {
    const part = $(id);
    if (part && !part.dataset.ready) { part.dataset.ready = "1"; start(); }
  }
}

document.addEventListener("keydown", (e) => {
  if (e.ctrlKey || e.metaKey || e.altKey) return;
  const typing = e.target.closest?.("input, select, textarea");
  if (e.key === "/" && !typing) {
    e.preventDefault();
    document.querySelector('[role="tab"]').click();
    $("vs-box")?.focus();
    return;
  }
  if (e.key === "Escape" && player.isOpen()) { player.close(); return; }
  const cards = [...document.querySelectorAll(".vs-hit")], at = cards.indexOf(document.activeElement);
  const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: 1, ArrowUp: -1 }[e.key];
  const fromBox = e.target.id === "vs-box" && e.key === "ArrowDown";
  if (!step || !cards.length || (at < 0 && !fromBox)) return;
  e.preventDefault();
  const columns = Math.max(1, cards.filter((c) => c.parentElement.offsetTop === cards[0].parentElement.offsetTop).length);
  const next = at < 0 ? 0 : at + step * (["ArrowDown", "ArrowUp"].includes(e.key) ? columns : 1);
  if (next < 0) $("vs-box").focus();
  else (cards[next] || cards[at]).focus();
});
new MutationObserver(wake).observe(document.documentElement, { childList: true, subtree: true });
wake();
