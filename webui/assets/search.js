// The Search tab: a question (sentence, picture of a video, upload) with filters, and its hits.
import { $, ask, clock, fileName, folderName, make, place, plain, post, range } from "./common.js";
import * as player from "./player.js";
import { still } from "./stills.js";

const PAGE = 60; // hits drawn at a time
const UPLOAD_SIDE = 1024; // pictures are made this small before they are sent
const FILTERS = ["folder", "after", "before", "shortest", "longest"];
let hits = [], shown = 0, drawn = 0, asked = 0; // `shown`: the first that are not folded away
let question = null; // { q } | { video, t } | { look }
let words = ""; // the question for people

const note = (text) => { $("vs-note").textContent = plain(text); };
const filters = () => Object.fromEntries(FILTERS.map((f) => [f, $(`vs-${f}`).value]).filter(([, value]) => value));

async function show(then) {
  const mine = ++asked;
  note("Searching …");
  $("vs-hits").setAttribute("aria-busy", "true");
  try {
    const answer = await ask(`/api/search?${new URLSearchParams({ ...question, n: $("vs-number").value, ...filters() })}`);
    if (mine !== asked) return; // a later question has overtaken this one
    const folded = answer.hits.filter((hit) => hit.strength === "unlikely");
    hits = [...answer.hits.filter((hit) => hit.strength !== "unlikely"), ...folded]; drawn = 0;
    shown = hits.length - folded.length;
    $("vs-hits").replaceChildren();
    $("vs-hello").hidden = true;
    draw();
    const count = shown === 1 ? "1 video" : `${shown} videos`;
    const unread = answer.language ? ` This looks like ${answer.language}, which ${answer.model} was not taught; ask in English.` : "";
    note((!hits.length ? `Nothing found for ${words}${Object.keys(filters()).length ? " with these filters" : ""}.`
      : answer.confident ? `${count} for ${words}` : `Probably not in this library: ${words}.`) + unread);
    if (then) await then();
  } catch (error) {
    if (mine === asked) note(error.message);
  } finally {
    if (mine === asked) $("vs-hits").removeAttribute("aria-busy");
  }
}

function remember(extra = {}) {
  if (question.look) return history.replaceState(null, "", "?"); // an upload is its sender's alone: no link to it
  const { video, t, q } = question, state = q ? { q } : { like: video, at: t };
  history.replaceState(null, "", `?${new URLSearchParams({ ...state, n: $("vs-number").value, ...filters(), ...extra })}`);
}

function searchText(then) {
  const q = $("vs-box").value.trim();
  if (!q) return;
  question = { q }; words = `“${q}”`;
  remember();
  return show(then);
}

export function searchLike(id, t, name, then) {
  question = { video: id, t }; words = `pictures like ${name} at ${clock(t)}`;
  document.querySelector('[role="tab"]').click();
  remember();
  return show(then);
}

async function searchUpload(file) {
  note(`Looking at ${file.name} …`);
  try {
    const body = file.type.startsWith("image/") ? await smaller(file) : file;
    const { look } = await post("/api/look", body, "application/octet-stream");
    question = { look }; words = `pictures like ${file.name}`;
    remember();
    await show();
  } catch (error) { note(error.message); }
}

// What the model sees is a few hundred pixels wide: no need to send more.
async function smaller(file) {
  try {
    const bitmap = await createImageBitmap(file), scale = Math.min(1, UPLOAD_SIDE / Math.max(bitmap.width, bitmap.height));
    const canvas = make("canvas");
    canvas.width = Math.max(1, Math.round(bitmap.width * scale)); canvas.height = Math.max(1, Math.round(bitmap.height * scale));
    const brush = canvas.getContext("2d");
    brush.fillStyle = "#fff"; brush.fillRect(0, 0, canvas.width, canvas.height);
    brush.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
    return (await new Promise((done) => canvas.toBlob(done, "image/jpeg", 0.92))) || file;
  } catch { return file; }
}

function draw() {
  const part = document.createDocumentFragment();
  for (const hit of hits.slice(drawn, Math.min(shown, drawn + PAGE))) part.append(card(hit));
  $("vs-hits").append(part);
  drawn = Math.min(shown, drawn + PAGE);
  const left = shown - drawn, folded = hits.length - shown;
  $("vs-more").hidden = !(left || folded);
  $("vs-more").textContent = left ? `Show more (${left} left)` : `Show ${folded} unlikely`;
}

function more() {
  if (drawn >= shown) shown = hits.length; // unfold
  draw();
}

function card(hit) {
  const name = fileName(hit.path), more = hit.more.length ? `+${hit.more.length} more` : "";
  const poster = make("img", null, { src: place("thumb", hit.video, hit.content), alt: `Poster of ${name}`, loading: "lazy", decoding: "async" });
  const middle = (hit.start + hit.end) / 2;
  still(poster, place("still", hit.video, hit.content, { t: middle }), `${name} at ${clock(middle)}`);
  const picture = make("span", null, { class: "vs-picture" }, poster, make("span", range(hit), { class: "vs-time" }));
  const line = make("span", null, { class: "vs-meta" });
  if (hit.strength) line.append(make("span", hit.strength, { class: `vs-word vs-${hit.strength}`, title: `Score ${hit.score.toFixed(3)}` }));
  else line.append(make("span", hit.score.toFixed(2), { class: "vs-word", title: "Similarity, at most 1" }));
  if (hit.coarse) line.append(make("span", "coarse", { class: "vs-word", title: "Found by keyframes alone; this video is being indexed at full rate" }));
  line.append(make("span", more || folderName(hit.path), { class: "vs-quiet" }));
  const open = make("button", null, { type: "button", class: "vs-hit" }, picture, make("span", name, { class: "vs-name", title: hit.path }), line);
  open.addEventListener("click", () => watch(hit, open));
  const like = make("button", "≈", { type: "button", class: "vs-sim", "aria-label": `More like ${name} at ${clock(hit.start)}` }, make("span", "\u00a0Similar"));
  like.addEventListener("click", () => searchLike(hit.video, middle, name));
  return make("li", null, {}, open, like);
}

function watch(hit, button, moment = hit) {
  for (const other of document.querySelectorAll(".vs-hit[aria-current]")) other.removeAttribute("aria-current");
  button?.setAttribute("aria-current", "true");
  return player.play(hit.video, moment, { hit, question }).catch((error) => note(error.message));
}

async function share() {
  if (!question || question.look) return note("An upload stays with you: a search with it cannot be shared.");
  remember(player.chosen());
  try { await navigator.clipboard.writeText(location.href); note("Link copied."); }
  catch { note("The link is in the address bar."); }
}

// A link brings its question, filters and moment back.
async function fromLink() {
  const wanted = new URLSearchParams(location.search);
  for (const name of [...FILTERS, "number"]) {
    const value = wanted.get(name === "number" ? "n" : name), field = $(`vs-${name}`);
    if (!value) continue;
    if (field.tagName === "SELECT" && ![...field.options].some((o) => o.value === value)) field.append(make("option", value, { value }));
    field.value = value;
    if (name !== "number") $("vs-filters").open = true;
  }
  const [v, t, e] = ["v", "t", "e"].map((key) => Number(wanted.get(key)));
  const then = wanted.has("v") ? () => {
    const hit = hits.find((h) => h.video === v), button = document.querySelectorAll(".vs-hit")[hits.indexOf(hit)];
    return watch(hit || { video: v, start: t, end: e, more: [] }, button, { start: t, end: e > t ? e : t + 8 });
  } : undefined;
  if (wanted.get("q")) { $("vs-box").value = wanted.get("q"); await searchText(then); }
  else if (wanted.get("like")) {
    const { video } = await ask(`/api/videos/${Number(wanted.get("like"))}`);
    await searchLike(video.id, Number(wanted.get("at")), fileName(video.path), then);
  }
}

async function welcome() {
  try {
    const library = await ask("/api/library"), ready = (library.videos.indexed || 0) + (library.videos.partial || 0);
    const empty = ready ? `${ready} videos, ${clock(library.duration)} of footage can be searched.` : "Nothing is indexed yet: run `vsearch index FOLDER`.";
    $("vs-ready").textContent = empty + (library.running ? " More are being indexed now." : "");
    for (const f of library.folders) {
      if (![...$("vs-folder").options].some((o) => o.value === f.path)) $("vs-folder").append(make("option", `${f.path} (${f.videos})`, { value: f.path }));
    }
  } catch (error) { $("vs-ready").textContent = error.message; }
}

export function start() {
  player.start({ onLike: (id, t) => searchLike(id, t, $("vs-title").textContent), onShare: share });
  $("vs-form").addEventListener("submit", (e) => { e.preventDefault(); searchText(); });
  for (const name of [...FILTERS, "number"]) $(`vs-${name}`).addEventListener("change", () => { if (question) { remember(); show(); } });
  $("vs-clear").addEventListener("click", () => { for (const f of FILTERS) $(`vs-${f}`).value = ""; if (question) { remember(); show(); } });
  $("vs-more").addEventListener("click", more);
  $("vs-pick").addEventListener("click", () => $("vs-file").click());
  $("vs-file").addEventListener("change", () => { const [file] = $("vs-file").files; if (file) searchUpload(file); $("vs-file").value = ""; });
  const section = $("vs-search");
  section.addEventListener("dragover", (e) => { e.preventDefault(); section.classList.add("vs-drop"); });
  section.addEventListener("dragleave", () => section.classList.remove("vs-drop"));
  section.addEventListener("drop", (e) => { e.preventDefault(); section.classList.remove("vs-drop"); const [file] = e.dataTransfer.files; if (file) searchUpload(file); });
  document.addEventListener("paste", (e) => { const [file] = e.clipboardData.files; if (file) { e.preventDefault(); searchUpload(file); } });
  welcome();
  fromLink().catch((error) => note(error.message));
}
