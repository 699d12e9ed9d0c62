"""Load on the search page's server: concurrent searches beside concurrent media streams, on loopback.

    python benchmarks/load.py LIBRARY [--searches 50] [--streams 10] [--seconds 60]

Starts `vsearch serve` on the library, asks ten sentences once (so that the model is loaded and they are remembered),
then lets everyone ask at once. Prints p50 and p95 of a whole answer, the streams' rate, and errors.
"""

from __future__ import annotations

import argparse
import asyncio
import socket
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass, field

import httpx

SENTENCES = (
    "a bicycle on a city street", "a man talking in a car", "an animated rabbit in a meadow", "the Earth from space",
    "a dog running on grass", "people dancing", "a person cooking", "a red car", "waves on a beach", "a close-up of a face",
)  # fmt: skip
PART = 1 << 20  # bytes a stream asks for at once, as browsers do


@dataclass
class Tally:
    """Seconds of each answer, bytes received, and what went wrong."""

    seconds: list[float] = field(default_factory=list)
    bytes: int = 0
    errors: list[str] = field(default_factory=list)


async def searcher(client: httpx.AsyncClient, number: int, until: float, tally: Tally) -> None:
    turn = number
    while time.monotonic() < until:
        began = time.monotonic()
        await ask(client, "/api/search", tally, params={"q": SENTENCES[turn % len(SENTENCES)], "n": 24})
        tally.seconds.append(time.monotonic() - began)
        turn += 1


async def streamer(client: httpx.AsyncClient, video: int, until: float, tally: Tally) -> None:
    """Reads a video from its beginning to its end in ranges, again and again."""
    first = 0
    while time.monotonic() < until:
        began = time.monotonic()
        header = {"range": f"bytes={first}-{first + PART - 1}"}
        answer = await ask(client, f"/media/{video}", tally, headers=header)
        tally.seconds.append(time.monotonic() - began)
        if answer is None:
            return
        tally.bytes += len(answer.content)
        size = int(answer.headers["content-range"].rpartition("/")[2])
        first = first + PART if first + PART < size else 0


async def ask(
    client: httpx.AsyncClient,
    path: str,
    tally: Tally,
    *,
    params: dict[str, str | int] | None = None,
    headers: dict[str, str] | None = None,
) -> httpx.Response | None:
    try:
        answer = await client.get(path, params=params, headers=headers)
        answer.raise_for_status()
        return answer
    except httpx.HTTPError as error:
        tally.errors.append(repr(error))
        return None


async def measure(address: str, searches: int, streams: int, seconds: float) -> int:
    limits = httpx.Limits(max_connections=searches + streams + 5)
    async with httpx.AsyncClient(base_url=address, timeout=60, limits=limits) as client:
        for sentence in SENTENCES:
            (await client.get("/api/search", params={"q": sentence})).raise_for_status()
        listed = (await client.get("/api/videos")).json()["videos"]
        videos = [v["id"] for v in listed if v["playable"] and v["state"] == "indexed"]
        asking, playing = Tally(), Tally()
        until = time.monotonic() + seconds
        await asyncio.gather(
            *(searcher(client, i, until, asking) for i in range(searches)),
            *(streamer(client, videos[i % len(videos)], until, playing) for i in range(streams)),
        )
    print(f"{len(listed)} videos; {searches} searchers and {streams} streams for {seconds:.0f} s")
    for name, tally in (("search", asking), ("range of a stream", playing)):
        if tally.seconds:
            cuts = statistics.quantiles(tally.seconds, n=100)
            print(
                f"{name}: {len(tally.seconds)} answers, p50 {1000 * cuts[49]:.0f} ms, p95 {1000 * cuts[94]:.0f} ms, "
                f"{len(tally.errors)} errors {sorted(set(tally.errors))[:3] or ''}"
            )
    print(f"streamed {playing.bytes / 1e6 / seconds:.1f} MB/s")
    return 1 if asking.errors or playing.errors else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("library")
    parser.add_argument("--searches", type=int, default=50)
    parser.add_argument("--streams", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=60)
    args = parser.parse_args()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "vsearch", "serve", "--library", args.library, "--port", str(port)]
    server = subprocess.Popen(command)
    address = f"http://127.0.0.1:{port}"
    try:
        began = time.monotonic()
        while True:
            try:
                httpx.get(f"{address}/health").raise_for_status()
                break
            except httpx.TransportError:
                if server.poll() is not None or time.monotonic() - began > 120:
                    print("the server did not start", file=sys.stderr)
                    return 2
                time.sleep(0.2)
        print(f"server up after {time.monotonic() - began:.1f} s")
        return asyncio.run(measure(address, args.searches, args.streams, args.seconds))
    finally:
        server.terminate()
        server.wait(20)


if __name__ == "__main__":
    sys.exit(main())
