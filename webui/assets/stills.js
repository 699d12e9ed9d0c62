// A hit's own picture in place of its video's poster: the browser itself takes it from the file, one at a time, and
// only for cards in view. What it cannot play keeps the poster.
const WIDTH = 360, PATIENCE_MS = 5000;
const wanted = new WeakMap(); // img -> { address, t, words }
const queue = [];
let busy = false;

const inView = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    if (!entry.isIntersecting) continue;
    inView.unobserve(entry.target);
    queue.push(entry.target);
  }
  work();
});

// Show the picture at `t` seconds of the file at `address` in `img`, described by `words`.
export function still(img, address, t, words) {
  wanted.set(img, { address, t, words });
  inView.observe(img);
}

async function work() {
  if (busy) return;
  busy = true;
  while (queue.length) {
    const img = queue.shift();
    if (img.isConnected) await take(img, wanted.get(img)).catch(() => {});
  }
  busy = false;
}

async function take(img, { address, t, words }) {
  const video = document.createElement("video");
  video.muted = true; video.preload = "auto"; video.src = address;
  try {
    await happens(video, "loadeddata");
    video.currentTime = t;
    await happens(video, "seeked");
    const canvas = document.createElement("canvas");
    canvas.width = WIDTH; canvas.height = Math.max(1, Math.round((WIDTH * video.videoHeight) / video.videoWidth));
    canvas.getContext("2d").drawImage(video, 0, 0, canvas.width, canvas.height);
    const address = URL.createObjectURL(await new Promise((done) => canvas.toBlob(done, "image/jpeg", 0.85)));
    img.addEventListener("load", () => URL.revokeObjectURL(address), { once: true });
    img.src = address; img.alt = words;
  } finally {
    video.removeAttribute("src"); video.load(); // frees the decoder and the connection
  }
}

const happens = (video, event) => new Promise((done, fail) => {
  const late = setTimeout(() => fail(new Error("too slow")), PATIENCE_MS);
  video.addEventListener(event, () => { clearTimeout(late); done(); }, { once: true });
  video.addEventListener("error", () => { clearTimeout(late); fail(new Error("not playable")); }, { once: true });
});
