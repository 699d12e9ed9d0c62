// The Localize tab: named actions as coloured bars over a video, as a table, as files.
import { $, ask, clock, fileName, folderName, make } from "./common.js";
import { play } from "./player.js";

// Each has a contrast of at least 3 to the page, light or dark.
const COLOURS = ["#2563eb", "#c2620a", "#0d8a5f", "#d03587", "#7c4dff", "#0a8299", "#64801a", "#dc3545"];
let videos = new Map();

export async function start() {
  $("vs-lform").addEventListener("submit", (e) => { e.preventDefault(); localize(); });
  try {
    const listed = (await ask("/api/videos")).videos.filter((v) => ["indexed", "partial"].includes(v.state));
    videos = new Map(listed.map((v) => [String(v.id), v]));
    const names = listed.map((v) => fileName(v.path)), twice = new Set(names.filter((n, i) => names.indexOf(n) !== i));
    $("vs-lvideo").replaceChildren(...listed.map((v, i) =>
      make("option", `${twice.has(names[i]) ? `${folderName(v.path)}/` : ""}${names[i]} (${clock(v.duration)})`, { value: v.id })));
  } catch (error) { $("vs-lnote").textContent = error.message; }
}

async function localize() {
  const video = videos.get($("vs-lvideo").value), actions = $("vs-lactions").value.trim();
  if (!video || !actions) { $("vs-lnote").textContent = "Choose a video and name actions, with commas between."; return; }
  const asked = { video: video.id, actions, threshold: $("vs-lthreshold").value };
  $("vs-lnote").textContent = "Looking …";
  try {
    const { detections: found } = await ask(`/api/localize?${new URLSearchParams(asked)}`);
    const one = found.length === 1 ? "1 interval" : `${found.length} intervals`;
    $("vs-lnote").textContent = found.length ? `${one} in ${fileName(video.path)}` : "None of these actions was found. Lower the bar, or say it in other words.";
    const labels = [...new Set(found.map((d) => d.label))], colour = (label) => COLOURS[labels.indexOf(label) % COLOURS.length];
    const watch = (d) => play(video.id, d, { hit: { ...d, more: found.filter((o) => o !== d && o.label === d.label) }, question: { q: d.label }, home: "vs-lstage" })
      .catch((error) => { $("vs-lnote").textContent = error.message; });
    $("vs-lbars").replaceChildren(...labels.map((label) => bars(label, found.filter((d) => d.label === label), video.duration, colour(label), watch)));
    if (found.length) $("vs-lbars").append(make("div", null, { class: "vs-row vs-scale", "aria-hidden": true }, make("span"), make("div", null, {}, make("span", "0:00"), make("span", clock(video.duration)))));
    $("vs-ltable").hidden = !found.length;
    $("vs-ltable").tBodies[0].replaceChildren(...found.map((d) => row(d, colour(d.label), watch)));
    $("vs-lsave").replaceChildren(...(found.length ? downloads(asked) : []));
  } catch (error) { $("vs-lnote").textContent = error.message; }
}

function bars(label, found, duration, colour, watch) {
  const track = make("div", null, { class: "vs-track" });
  for (const d of [...found].sort((a, b) => b.end - b.start - (a.end - a.start))) { // shorter ones on top
    const words = `${label}, ${clock(d.start)} – ${clock(d.end)}, ${(100 * d.score).toFixed(0)} %`;
    const bar = make("button", null, { type: "button", title: words, "aria-label": words });
    Object.assign(bar.style, { left: `${(100 * d.start) / duration}%`, width: `${(100 * (d.end - d.start)) / duration}%`, background: colour });
    bar.addEventListener("click", () => watch(d));
    track.append(bar);
  }
  return make("div", null, { class: "vs-row" }, make("span", label), track);
}

function row(d, colour, watch) {
  const dot = make("span", null, { class: "vs-dot", "aria-hidden": true });
  dot.style.background = colour;
  const open = make("button", `${clock(d.start)} – ${clock(d.end)}`, { type: "button", class: "vs-link" });
  open.addEventListener("click", () => watch(d));
  return make("tr", null, {}, make("td", null, {}, dot, d.label), make("td", null, {}, open), make("td", `${(100 * d.score).toFixed(0)} %`));
}

function downloads(asked) {
  return ["json", "csv", "srt", "vtt"].map((format) => make("a", `Download ${format.toUpperCase()}`, {
    class: "vs-button", href: `/api/localize?${new URLSearchParams({ ...asked, format })}`, download: `actions-${asked.video}.${format}`,
  }));
}
