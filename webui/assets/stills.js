// A hit's own picture in place of its video's poster: the server makes it, for cards in view, a few at a time. Where
// it cannot, the poster stays.
const AT_ONCE = 2;
const wanted = new WeakMap(); // img -> { address, words }
const queue = [];
let busy = 0;

const inView = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    if (!entry.isIntersecting) continue;
    inView.unobserve(entry.target);
    queue.push(entry.target);
  }
  while (busy < AT_ONCE && queue.length) work();
});

// Show the picture at `address` in `img`, described by `words`.
export function still(img, address, words) {
  wanted.set(img, { address, words });
  inView.observe(img);
}

async function work() {
  busy++;
  while (queue.length) {
    const img = queue.shift();
    if (img.isConnected) await take(img, wanted.get(img)).catch(() => {});
  }
  busy--;
}

async function take(img, { address, words }) {
  const picture = new Image();
  picture.src = address;
  await picture.decode();
  img.src = address; img.alt = words;
}
