// The player: stands at the moment and plays it, with a timeline of the whole video under it.
import { $, ask, clock, fileName, inquire, make, place, plain, range } from "./common.js";

const SVG = "http://www.w3.org/2000/svg";
const HEIGHT = 60, MOST_PEAKS = 6, LONGEST_CUT = 60;
let playing = null; // { id, base, video, hit, question }: `base` is where the file being played begins in the video
let opener = null; // what had the focus

export const isOpen = () => playing !== null;
export const here = () => ({ video: playing.id, t: Number((playing.base + $("vs-video").currentTime).toFixed(3)) });
export const chosen = () => ({ v: playing.id, t: $("vs-in").value, e: $("vs-out").value });

// Play [moment.start, moment.end) of a video. `hit`: moments to mark; `question`: parameters for the timeline.
export async function play(id, moment, { hit = null, question = null, home = "vs-stage", at = moment.start, preview = false } = {}) {
  const { video } = await ask(`/api/videos/${id}`);
  if (preview) video.playable = false; // whatever its file promises, this browser cannot
  if (!playing) opener = document.activeElement;
  const base = video.playable ? 0 : Math.max(0, at - 1);
  const stop = Math.min(video.duration, Math.max(moment.end + 1, base + 8), base + 60);
  playing = { id, base, video, hit: hit || { ...moment, more: [] }, question };
  $(home).append($("vs-player"));
  const player = $("vs-video");
  player.src = video.playable ? `${place("media", id, video.content)}#t=${at}` : `${place("clip", id, video.content, { start: base, end: stop })}#t=${at - base}`;
  player.setAttribute("aria-label", fileName(video.path));
  player.poster = place("thumb", id, video.content);
  $("vs-title").textContent = fileName(video.path);
  $("vs-where").textContent = plain(video.path);
  $("vs-said").textContent = video.playable ? "" : "A preview is being made: this file does not play in browsers as it is.";
  setCut(moment.start, moment.end);
  $("vs-player").hidden = false;
  $(home).closest("section").classList.add("vs-watching");
  player.play().catch(() => {}); // a browser may want a click first; the picture already stands at the moment
  $("vs-player").scrollIntoView({ block: "nearest" });
  await draw();
}

export function close() {
  const player = $("vs-video");
  player.pause(); player.removeAttribute("src"); player.load();
  $("vs-player").hidden = true;
  for (const section of document.querySelectorAll(".vs-watching")) section.classList.remove("vs-watching");
  playing = null;
  if (opener?.isConnected) opener.focus();
}

function seek(time) {
  const { base, video, id, hit, question } = playing, player = $("vs-video"), local = time - base;
  if (video.playable || (local >= 0 && local <= player.duration)) {
    player.currentTime = local;
    player.play().catch(() => {});
  } else {
    const home = $("vs-player").parentElement.id;
    play(id, { start: time, end: Math.min(time + 8, video.duration) }, { hit, question, home });
  }
}

function setCut(start, end) {
  $("vs-in").value = start.toFixed(1);
  $("vs-out").value = end.toFixed(1);
  cut();
}

function cut() {
  const start = Number($("vs-in").value), end = Number($("vs-out").value), save = $("vs-save");
  const long = end - start, total = playing.video.duration || 1;
  const given = $("vs-in").value !== "" && $("vs-out").value !== "", inside = start >= 0 && end <= total + 0.1;
  const fine = given && inside && long > 0 && long <= LONGEST_CUT;
  if (fine) save.href = place("clip", playing.id, playing.video.content, { start, end, download: true });
  else save.removeAttribute("href");
  save.setAttribute("aria-disabled", String(!fine));
  $("vs-length").textContent = fine ? `${long.toFixed(1)} s` : !given ? "give in and out" : !inside ? `the video ends at ${total.toFixed(1)} s`
    : long > 0 ? `at most ${LONGEST_CUT} s` : "out must be after in";
  const mark = $("vs-cut");
  mark.style.left = `${(100 * Math.max(0, start)) / total}%`;
  mark.style.width = `${Math.max(0, (100 * long) / total)}%`;
}

// The browser would only say that a download failed: ask first.
async function save(event) {
  event.preventDefault();
  const address = $("vs-save").getAttribute("href");
  if (!address) return;
  $("vs-length").textContent = "Cutting …";
  const { why, note } = await inquire(address);
  if (why === null) make("a", null, { href: address, download: "" }).click();
  if (playing && $("vs-save").getAttribute("href") === address) { cut(); if (why || note) $("vs-length").textContent = why || note; }
}

// The file plays not: the server says why, or this browser cannot and a preview can.
async function failed() {
  const { id, video, hit, question } = playing, mine = playing, player = $("vs-video");
  const { why } = await inquire(player.currentSrc.split("#")[0]);
  if (playing !== mine) return;
  if (why === null && video.playable) {
    const start = Math.max(Number($("vs-in").value), player.currentTime), home = $("vs-player").parentElement.id;
    await play(id, { start, end: Math.min(start + 8, video.duration) }, { hit, question, home, preview: true });
  } else $("vs-said").textContent = why || "This browser cannot play it.";
}

async function shown() {
  if (!playing) return;
  const mine = playing;
  $("vs-said").textContent = mine.video.playable ? "" : "Preview in H.264";
  if (mine.video.playable) return;
  const { note } = await inquire($("vs-video").currentSrc.split("#")[0]);
  if (note && playing === mine) $("vs-said").textContent = `Preview in H.264, ${note}`;
}

const percent = (time) => `${Math.min(100, (100 * time) / (playing.video.duration || 1))}%`;

async function draw() {
  const mine = playing, { id, video, hit, question } = playing;
  const picture = $("vs-curve"), marks = $("vs-marks"), list = $("vs-moments");
  picture.replaceChildren(); marks.replaceChildren(); list.replaceChildren();
  $("vs-total").textContent = clock(video.duration);
  [hit, ...hit.more].forEach((m, i) => {
    const words = i ? `Moment ${range(m)}` : `Best moment ${range(m)}`;
    const bar = make("button", null, { type: "button", class: "vs-mark", title: words, "aria-label": words, tabindex: -1 });
    bar.style.left = percent(m.start);
    bar.style.width = `calc(max(4px, ${percent(m.end - m.start)}))`;
    bar.addEventListener("click", (e) => { e.stopPropagation(); seek(m.start); setCut(m.start, m.end); });
    marks.append(bar);
    if (hit.more.length && i < 12) {
      const chip = make("button", range(m), { type: "button", class: "vs-chip" });
      chip.addEventListener("click", () => { seek(m.start); setCut(m.start, m.end); });
      list.append(chip);
    }
  });
  if (!question) return;
  let points;
  try {
    points = (await ask(`/api/timeline/${id}?${new URLSearchParams(question)}`)).points;
  } catch { return; /* no timeline for this question */ }
  if (playing !== mine || !points.length) return;
  const scores = points.map((p) => p.score), low = Math.min(...scores), high = Math.max(...scores), span = high - low || 1;
  const x = (t) => (1000 * t) / (video.duration || 1), y = (s) => HEIGHT - 3 - ((HEIGHT - 8) * (s - low)) / span;
  const line = points.map((p) => `${x(p.time).toFixed(1)},${y(p.score).toFixed(1)}`);
  const shape = document.createElementNS(SVG, "polygon");
  shape.setAttribute("points", `0,${HEIGHT} 0,${y(scores[0]).toFixed(1)} ${line.join(" ")} 1000,${y(scores.at(-1)).toFixed(1)} 1000,${HEIGHT}`);
  picture.append(shape);
  for (const p of peaks(points, low + 0.6 * span, video.duration / 15)) {
    const words = `Peak at ${clock(p.time)}`;
    const dot = make("button", null, { type: "button", class: "vs-peak", title: words, "aria-label": words });
    dot.style.left = percent(p.time);
    dot.style.top = `${(100 * y(p.score)) / HEIGHT}%`;
    dot.addEventListener("click", (e) => { e.stopPropagation(); seek(p.time); });
    marks.append(dot);
  }
}

// The highest places where the curve turns down, above `floor`, at least `apart` seconds from one another, in time order.
function peaks(points, floor, apart) {
  const level = (i) => points[i]?.score ?? -Infinity;
  const tops = points.filter((p, i) => p.score >= floor && p.score >= level(i - 1) && p.score > level(i + 1));
  const found = [];
  for (const p of tops.sort((a, b) => b.score - a.score || a.time - b.time)) {
    if (found.length < MOST_PEAKS && found.every((q) => Math.abs(q.time - p.time) >= apart)) found.push(p);
  }
  return found.sort((a, b) => a.time - b.time);
}

export function start({ onLike, onShare }) {
  const player = $("vs-video"), bar = $("vs-timeline");
  $("vs-close").addEventListener("click", close);
  $("vs-in").addEventListener("input", cut);
  $("vs-out").addEventListener("input", cut);
  $("vs-setin").addEventListener("click", () => { $("vs-in").value = here().t.toFixed(1); cut(); });
  $("vs-setout").addEventListener("click", () => { $("vs-out").value = here().t.toFixed(1); cut(); });
  $("vs-like").addEventListener("click", () => onLike(here().video, here().t));
  $("vs-save").addEventListener("click", save);
  $("vs-share").addEventListener("click", onShare);
  const timeAt = (e) => {
    const box = bar.getBoundingClientRect();
    return Math.min(1, Math.max(0, (e.clientX - box.left) / box.width)) * playing.video.duration;
  };
  bar.addEventListener("click", (e) => seek(timeAt(e)));
  bar.addEventListener("mousemove", (e) => {
    if (!playing) return;
    $("vs-hover").textContent = clock(timeAt(e));
    $("vs-hover").style.left = percent(timeAt(e));
  });
  bar.addEventListener("keydown", (e) => {
    const step = { ArrowLeft: -1, ArrowRight: 1, PageDown: -10, PageUp: 10 }[e.key];
    if (e.target !== bar || !step) return;
    e.preventDefault(); e.stopPropagation();
    seek(Math.min(playing.video.duration, Math.max(0, here().t + step)));
  });
  player.addEventListener("timeupdate", () => {
    if (!playing) return;
    $("vs-now").style.left = percent(here().t);
    $("vs-time").textContent = clock(here().t); // the video's own; a preview's controls count from the preview's start
    bar.setAttribute("aria-valuenow", here().t.toFixed(0));
    bar.setAttribute("aria-valuemax", playing.video.duration.toFixed(0));
    bar.setAttribute("aria-valuetext", clock(here().t));
  });
  player.addEventListener("loadeddata", shown);
  player.addEventListener("error", () => { if (playing && player.getAttribute("src")) failed().catch((error) => { $("vs-said").textContent = error.message; }); });
}
