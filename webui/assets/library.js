// The Library tab: what there is, what is being done, what went wrong, which head answers.
import { $, ask, clock, make, post } from "./common.js";

const EVERY_MS = 2000; // while something is at work; else when asked
const STATES = ["indexed", "partial", "failed", "missing"];
const WORK = { adopt: "Adopting a head", retry: "Trying failed files again" };
let timer = null;

export function start() {
  $("vs-refresh").addEventListener("click", refresh);
  $("vs-retry").addEventListener("click", () => change("/api/retry", "{}"));
  $("vs-rollback").addEventListener("click", () => change("/api/head", JSON.stringify({ choice: null })));
  $("vs-adopt").addEventListener("click", () => change("/api/head", JSON.stringify({ choice: $("vs-heads").value })));
  refresh();
}

async function refresh() {
  try { show(await ask("/api/library")); } catch (error) { fail(error); }
}

async function change(address, body) {
  $("vs-work").textContent = "";
  try { show(await post(address, body)); } catch (error) { fail(error); }
}

function fail(error) {
  $("vs-work").textContent = error.message;
}

function show(l) {
  const count = (n, word) => `${n.toLocaleString()} ${word}`;
  const rows = {
    Videos: STATES.filter((s) => l.videos[s]).map((s) => count(l.videos[s], s)).join(", ").concat(l.coarse ? `; ${l.coarse.toLocaleString()} of them coarse so far` : "") || "none yet",
    Footage: `${clock(l.duration)} in ${count(l.moments, "moments")}, ${count(l.frames, "frames")}`,
    "On disk": `${(l.bytes / 1e6).toFixed(1)} MB`,
    Model: l.model || "none yet",
    Head: l.head || "none yet",
    Index: l.generation === null ? "none yet: run `vsearch index FOLDER`" : `generation ${l.generation}, ${l.up_to_date ? "up to date" : l.running ? "behind the run at work" : "not up to date: run `vsearch index` again"}`,
  };
  $("vs-state").replaceChildren(...Object.entries(rows).flatMap(([k, v]) => [make("dt", k), make("dd", v)]));
  work(l);
  heads(l);
  const retriable = l.troubled.filter((v) => v.state !== "missing").length;
  $("vs-retry").hidden = !retriable;
  $("vs-retry").disabled = Boolean(l.job?.running);
  $("vs-bad").hidden = !l.troubled.length;
  $("vs-fine").hidden = Boolean(l.troubled.length);
  $("vs-troubled").tBodies[0].replaceChildren(...l.troubled.map((v) => make("tr", null, {},
    make("td", null, {}, make("span", v.state, { class: `vs-word vs-is-${v.state}` })), make("td", v.path), make("td", v.reason || "the file is not there"))));
  clearTimeout(timer);
  if (l.running || l.job?.running) timer = setTimeout(refresh, EVERY_MS);
}

function work(l) {
  const bar = $("vs-progress"), run = l.running;
  bar.hidden = !run;
  if (run) {
    if (run.videos) { bar.max = run.videos; bar.value = run.videos_done; } else bar.removeAttribute("value");
    const parts = [run.stage];
    if (run.videos) parts.push(`${run.videos_done} of ${run.videos} videos`);
    if (run.frames) parts.push(`${run.frames.toLocaleString()} frames, ${run.frames_per_s.toFixed(0)} a second`);
    if (run.eta_s !== null) parts.push(`${clock(run.eta_s)} left`);
    if (run.warnings) parts.push(`${run.warnings} warnings`);
    $("vs-work").textContent = parts.join(" · ");
  } else if (l.job?.running) $("vs-work").textContent = `${WORK[l.job.name]} …`;
  else if (l.job?.error) $("vs-work").textContent = `${WORK[l.job.name]} failed: ${l.job.error}`;
  else $("vs-work").textContent = l.job ? `${WORK[l.job.name]}: done.` : "No indexing run is at work.";
}

function heads(l) {
  const others = l.heads.filter((h) => h.choice), picked = $("vs-heads").value;
  $("vs-heads").replaceChildren(...others.map((h) => make("option", h.name, { value: h.choice })));
  if (others.some((h) => h.choice === picked)) $("vs-heads").value = picked;
  $("vs-choose").hidden = !others.length;
  $("vs-adopt").disabled = Boolean(l.job?.running);
  $("vs-rollback").hidden = !l.can_roll_back;
  $("vs-nohead").hidden = Boolean(others.length || l.can_roll_back);
}
