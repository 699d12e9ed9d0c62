// What every part of the page uses. Names are only ever set with textContent.
export const $ = (id) => document.getElementById(id);

export function make(tag, text = null, attributes = {}, ...children) {
  const element = document.createElement(tag);
  if (text !== null) element.textContent = text;
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

const two = (n) => String(n).padStart(2, "0");

export function clock(s) {
  const m = Math.floor(s / 60), h = Math.floor(m / 60);
  return (h ? `${h}:${two(m % 60)}` : `${m}`) + `:${two(Math.floor(s % 60))}`;
}

export const range = (m) => `${clock(m.start)} – ${clock(m.end)}`;
export const fileName = (path) => path.split(/[\\/]/).pop();
export const folderName = (path) => path.split(/[\\/]/).slice(-2, -1)[0] || "";

async function answered(answer) {
  const body = await answer.json().catch(() => ({}));
  if (answer.ok) return body;
  const words = body.error || (typeof body.detail === "string" ? body.detail : null);
  if (answer.status === 422 && !words) throw new Error("The server did not understand a value; look at the filters.");
  throw new Error(words || `The server refused (${answer.status}).`);
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
