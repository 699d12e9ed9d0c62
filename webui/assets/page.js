// The page's life: asks the API, shows the answer. Names are only ever set with textContent.
(() => {
  "use strict";
  const $ = (id) => document.getElementById(id);
  const PAGE = 60; // hits drawn at a time
  const COLOURS = ["#2563eb", "#d97706", "#059669", "#db2777", "#7c3aed", "#0891b2", "#65a30d", "#dc2626"];
  let hits = [], drawn = 0, question = "", playing = null, asked = 0, videos = new Map();

  const make = (tag, text, attributes = {}) => {
    const element = document.createElement(tag);
    if (text !== null) element.textContent = text;
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    return element;
  };
  const clock = (s) => {
    const m = Math.floor(s / 60), h = Math.floor(m / 60), two = (n) => String(n).padStart(2, "0");
    return (h ? `${h}:${two(m % 60)}` : `${m}`) + `:${two(Math.floor(s % 60))}`;
  };
  const fileName = (path) => path.split(/[\\/]/).pop();
  async function ask(address) {
    const answer = await fetch(address, { headers: { accept: "application/json" } });
    const body = await answer.json().catch(() => ({}));
    if (!answer.ok) throw new Error(body.error || (typeof body.detail === "string" ? body.detail : `The server refused (${answer.status}).`));
    return body;
  }

  async function show(address, words, then) {
    const mine = ++asked;
    $("vs-note").textContent = "Searching …";
    try {
      const answer = await ask(address);
      if (mine !== asked) return; // a later question has overtaken this one
      hits = answer.hits; drawn = 0;
      $("vs-hits").replaceChildren();
      draw();
      $("vs-note").textContent = !hits.length ? "Nothing found." : answer.confident
        ? `${hits.length} videos for ${words}` : `Probably not in this library; the nearest moments are shown.`;
      if (then) then();
    } catch (error) { if (mine === asked) $("vs-note").textContent = error.message; }
  }
  function search(text, number, moment) {
    question = text.trim();
    if (!question) return;
    const state = new URLSearchParams({ q: question, n: number });
    history.replaceState(null, "", `?${state}`);
    show(`/api/search?${state}`, `“${question}”`, () => { if (moment) play(...moment); });
  }
  function draw() {
    for (const hit of hits.slice(drawn, drawn + PAGE)) {
      const item = make("li", null), card = make("button", null, { type: "button", class: "vs-hit" });
      const name = fileName(hit.path), range = `${clock(hit.start)} – ${clock(hit.end)}`;
      const picture = make("img", null, { src: `/thumb/${hit.video}`, alt: `Poster of ${name}`, loading: "lazy" });
      card.append(picture, make("span", name, { class: "name", title: hit.path }),
        make("span", [range, hit.strength, hit.more.length && `${hit.more.length} more`].filter(Boolean).join(" · ")));
      card.addEventListener("click", () => play(hit.video, hit.start, hit.end, hit));
      item.append(card); $("vs-hits").append(item);
    }
    drawn = Math.min(hits.length, drawn + PAGE);
    $("vs-more").hidden = drawn >= hits.length;
  }

  async function play(id, start, end, hit) {
    const { video } = await ask(`/api/videos/${id}`);
    hit = hit || hits.find((h) => h.video === id) || { start, end, more: [] };
    const base = video.playable ? 0 : Math.max(0, start - 1);
    const stop = Math.min(video.duration, Math.max(end + 1, base + 8), base + 60);
    playing = { id, base, video, hit };
    const player = $("vs-video");
    player.src = video.playable ? `/media/${id}#t=${start}` : `/clip/${id}?start=${base}&end=${stop}#t=${start - base}`;
    player.setAttribute("aria-label", fileName(video.path));
    $("vs-title").textContent = `${fileName(video.path)}  ${clock(start)} – ${clock(end)}`;
    $("vs-in").value = start.toFixed(1); $("vs-out").value = end.toFixed(1);
    cut(); $("vs-player").hidden = false;
    player.play().catch(() => {}); // a browser may want a click first; the picture already stands at the moment
    $("vs-player").scrollIntoView({ block: "nearest" });
    timeline();
  }
  const seek = (time) => {
    const { base, video, hit } = playing, player = $("vs-video");
    const local = time - base;
    if (video.playable || (local >= 0 && local <= player.duration)) { player.currentTime = local; player.play().catch(() => {}); }
    else play(playing.id, time, Math.min(time + 8, video.duration), hit);
  };
  const here = () => playing.base + $("vs-video").currentTime;
  function cut() {
    const range = new URLSearchParams({ start: $("vs-in").value, end: $("vs-out").value, download: true });
    $("vs-save").href = `/clip/${playing.id}?${range}`;
  }
  async function timeline() {
    const { id, video, hit } = playing, picture = $("vs-timeline"), ns = "http://www.w3.org/2000/svg";
    const x = (t) => (1000 * t) / (video.duration || 1);
    const shape = (tag, attributes) => {
      const element = document.createElementNS(ns, tag);
      for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
      return element;
    };
    picture.replaceChildren();
    if (question) try {
      const { points } = await ask(`/api/timeline/${id}?${new URLSearchParams({ q: question })}`);
      if (!playing || playing.id !== id) return;
      const scores = points.map((p) => p.score), low = Math.min(...scores), high = Math.max(...scores);
      const line = points.map((p) => `${x(p.time).toFixed(1)},${(58 - (54 * (p.score - low)) / (high - low || 1)).toFixed(1)}`);
      picture.append(shape("polygon", { points: `0,60 ${line.join(" ")} 1000,${line.at(-1).split(",")[1]} 1000,60` }));
    } catch { /* no timeline for this question */ }
    for (const m of [hit, ...hit.more])
      picture.append(shape("rect", { class: "moment", x: x(m.start), y: 0, width: Math.max(3, x(m.end) - x(m.start)), height: 60 }));
    picture.append(shape("line", { id: "vs-now", x1: 0, x2: 0, y1: 0, y2: 60 }));
  }
  function close() {
    const player = $("vs-video");
    player.pause(); player.removeAttribute("src"); player.load();
    $("vs-player").hidden = true; playing = null;
  }

  const ready = {
    "vs-search"() {
      $("vs-form").addEventListener("submit", (e) => { e.preventDefault(); search($("vs-box").value, $("vs-number").value); });
      $("vs-more").addEventListener("click", draw);
      $("vs-close").addEventListener("click", close);
      $("vs-in").addEventListener("change", cut); $("vs-out").addEventListener("change", cut);
      $("vs-like").addEventListener("click", () => { question = ""; show(`/api/similar?video=${playing.id}&t=${here()}`, "this picture"); });
      $("vs-share").addEventListener("click", async () => {
        const state = new URLSearchParams({ q: question, n: $("vs-number").value, v: playing.id, t: $("vs-in").value, e: $("vs-out").value });
        history.replaceState(null, "", `?${state}`);
        try { await navigator.clipboard.writeText(location.href); $("vs-note").textContent = "Link copied."; }
        catch { $("vs-note").textContent = "The link is in the address bar."; }
      });
      $("vs-timeline").addEventListener("click", (e) => {
        const box = $("vs-timeline").getBoundingClientRect();
        seek(((e.clientX - box.left) / box.width) * playing.video.duration);
      });
      $("vs-video").addEventListener("timeupdate", () => {
        const now = $("vs-now");
        if (!now || !playing) return;
        const at = (1000 * here()) / (playing.video.duration || 1);
        now.setAttribute("x1", at); now.setAttribute("x2", at);
      });
      $("vs-video").addEventListener("error", () => { if (playing) $("vs-note").textContent = "This video cannot be played here."; });
      const wanted = new URLSearchParams(location.search);
      if (wanted.get("q")) {
        $("vs-box").value = wanted.get("q");
        if (wanted.get("n")) $("vs-number").value = wanted.get("n");
        const [v, t, e] = ["v", "t", "e"].map((k) => Number(wanted.get(k)));
        search(wanted.get("q"), $("vs-number").value || "24", wanted.has("v") && [v, t, e || t + 8]);
      } else ask("/api/library").catch((error) => { $("vs-note").textContent = error.message; });
    },
    "vs-library"() { $("vs-refresh").addEventListener("click", library); library(); },
    "vs-localize"() { $("vs-lform").addEventListener("submit", (e) => { e.preventDefault(); localize(); }); choices(); },
  };

  async function library() {
    const state = $("vs-state"), table = $("vs-troubled");
    try {
      const l = await ask("/api/library");
      const rows = { Videos: Object.entries(l.videos).map(([k, n]) => `${n} ${k}`).join(", "), Footage: clock(l.duration), Moments: l.moments,
        "On disk": `${(l.bytes / 1e6).toFixed(1)} MB`, Model: l.model || "none yet", Index: l.up_to_date ? "up to date" : "not up to date: run vsearch index" };
      state.replaceChildren(...Object.entries(rows).flatMap(([k, v]) => [make("dt", k), make("dd", String(v))]));
      table.replaceChildren(...l.troubled.map((v) => { const row = make("tr", null); row.append(make("td", v.state), make("td", v.path), make("td", v.reason || "")); return row; }));
    } catch (error) { state.replaceChildren(make("dt", "Library"), make("dd", error.message)); }
  }
  async function choices() {
    try {
      const listed = (await ask("/api/videos")).videos.filter((v) => ["indexed", "partial"].includes(v.state));
      videos = new Map(listed.map((v) => [String(v.id), v]));
      $("vs-lvideo").replaceChildren(...listed.map((v) => make("option", fileName(v.path), { value: v.id })));
    } catch (error) { $("vs-lnote").textContent = error.message; }
  }
  async function localize() {
    const id = $("vs-lvideo").value, duration = videos.get(id)?.duration || 1;
    $("vs-lnote").textContent = "Looking …";
    try {
      const found = (await ask(`/api/localize?${new URLSearchParams({ video: id, actions: $("vs-lactions").value })}`)).detections;
      const labels = [...new Set(found.map((d) => d.label))];
      $("vs-lnote").textContent = found.length ? `${found.length} intervals` : "None of these actions was found.";
      $("vs-lbars").replaceChildren(...labels.map((label, i) => {
        const row = make("div", null, { class: "vs-row" }), track = make("div", null, { class: "vs-track" });
        for (const d of found.filter((d) => d.label === label)) {
          const words = `${label} ${clock(d.start)} – ${clock(d.end)} ${(100 * d.score).toFixed(0)} %`;
          const bar = make("button", null, { type: "button", title: words, "aria-label": words });
          Object.assign(bar.style, { left: `${(100 * d.start) / duration}%`, width: `${(100 * (d.end - d.start)) / duration}%`, background: COLOURS[i % COLOURS.length] });
          bar.addEventListener("click", () => { document.querySelector('[role="tab"]').click(); question = ""; play(Number(id), d.start, d.end, { ...d, more: [] }); });
          track.append(bar);
        }
        row.append(make("span", label), track);
        return row;
      }));
      const address = URL.createObjectURL(new Blob([JSON.stringify(found, null, 1)], { type: "application/json" }));
      $("vs-lsave").replaceChildren(make("a", "Download JSON", { href: address, download: "detections.json" }));
    } catch (error) { $("vs-lnote").textContent = error.message; }
  }

  document.addEventListener("keydown", (e) => {
    const typing = e.target.closest && e.target.closest("input, select, textarea");
    if (e.key === "/" && !typing) { e.preventDefault(); $("vs-box")?.focus(); return; }
    if (e.key === "Escape" && playing) { close(); return; }
    const cards = [...document.querySelectorAll(".vs-hit")], at = cards.indexOf(document.activeElement);
    const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: 1, ArrowUp: -1 }[e.key];
    if (!step || !cards.length || (typing && e.key !== "ArrowDown")) return;
    if (at < 0 && !(typing && e.target.id === "vs-box")) return;
    e.preventDefault();
    const columns = at < 0 ? 1 : Math.max(1, cards.filter((c) => c.offsetTop === cards[0].offsetTop).length);
    const next = at < 0 ? 0 : at + step * (["ArrowDown", "ArrowUp"].includes(e.key) ? columns : 1);
    (cards[next] || cards[at])?.focus();
  });
  // Gradio draws tabs when it likes; each part wakes up when it is there.
  const wake = () => {
    for (const [id, start] of Object.entries(ready)) {
      const part = $(id);
      if (part && !part.dataset.ready) { part.dataset.ready = "1"; start(); }
    }
  };
  new MutationObserver(wake).observe(document.documentElement, { childList: true, subtree: true });
  wake();
})();
