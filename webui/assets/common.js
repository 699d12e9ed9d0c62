// What every part of the page uses. Names are only ever set with textContent.
export const $ = (id) => document.getElementById(id);

// Names as they are: marks that turn the direction of writing, or that nobody sees, are spelled out.
export const plain = (text) => String(text).replace(/[\u0000-\u001f\u007f-\u009f\u200e\u200f\u2028-\u202e\u2066-\u2069]/g,
  (mark) => `\\u${mark.charCodeAt(0).toString(16).padStart(4, "0")}`);

const RAW = new Set(["href", "src", "value", "download"]); // not for reading

export function make(tag, text = null, attributes = {}, ...children) {
  const element = document.createElement(tag);
  if (text !== null) element.textContent = plain(text);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, RAW.has(name) ? value : plain(value));
  element.append(...children);
  return element;
}

// The address of a video's file, poster or clip: it names the content, so that no other is ever shown in its place.
export const place = (kind, id, content, more = {}) => `/${kind}/${id}?${new URLSearchParams({ ...(content ? { v: content } : {}), ...more })}`;

const two = (n) => String(n).padStart(2, "0");

export function clock(s) {
  const m = Math.floor(s / 60), h = Math.floor(m / 60);
  return (h ? `${h}:${two(m % 60)}` : `${m}`) + `:${two(Math.floor(s % 60))}`;
}

export const range = (m) => `${clock(m.start)} – ${clock(m.end)}`;
const parts = (path) => path.split(path.startsWith("/") ? "/" : /[\\/]/); // "\\" may stand in a name where "/" parts them
export const fileName = (path) => plain(parts(path).pop());
export const folderName = (path) => plain(parts(path).slice(-2, -1)[0] || "");

async function answered(answer) {
  const body = await answer.json().catch(() => ({}));
  if (answer.ok) return body;
  throw new Error(plain(body.error || `The server refused (${answer.status}).`));
}

async function reach(address, options) {
  try {
    return await fetch(address, options);
  } catch {
    throw new Error("The server does not answer; is `vsearch serve` still running?");
  }
}

export const ask = async (address) => answered(await reach(address, { headers: { accept: "application/json" } }));

export const post = async (address, body, type = "application/json") =>
  answered(await reach(address, { method: "POST", body, headers: { "content-type": type } }));

// `why` the server does not give a file, null when it does; and what it has to say of it, if anything.
export async function inquire(address) {
  try {
    const answer = await reach(address, { headers: { range: "bytes=0-0" }, cache: "no-store" });
    if (!answer.ok) await answered(answer);
    answer.body?.cancel();
    return { why: null, note: answer.headers.get("vsearch-note") };
  } catch (error) { return { why: error.message, note: null }; }
}
