"""How long a query takes, beside the usual way, measured in one run so that the ratios hold on a busy machine.

    python -m benchmarks.queries LIBRARY [--rounds 5] [--json]

Wall seconds of whole processes on the CPU, the ways taking turns.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from vsearch.library.catalogue import open_reading
from vsearch.process import Process
from vsearch.retriever import Question, ask, live_encoder, start

MEANING = {
    "usual": "the whole model loaded through open_clip, one sentence encoded, nothing searched",
    "cold": "a new sentence, nothing loaded before",
    "warm": "a new sentence, a helper running",
    "cached": "a sentence asked before, no helper",
}
LOADING_S = 120.0
USUAL = "import sys; from vsearch.models.backbone import load_weights; load_weights(sys.argv[1], 'cpu').encode_texts(sys.argv[2:])"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("library", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    library = args.library.resolve()
    with open_reading(library) as opened:
        spec = live_encoder(opened).spec
    taken = time_queries(library, spec, args.rounds)
    usual = statistics.median(taken["usual"])
    rows = {way: figures(seconds, usual) for way, seconds in taken.items()}
    if args.json:
        print(json.dumps({"model": spec["model"], "rounds": args.rounds, "ways": rows}))
        return
    print(f"{spec['model']}, {os.cpu_count()} cores")
    print(f"{'query':8}{'median':>9}{'min':>9}{'max':>9}{'times':>8}")
    for way, row in rows.items():
        seconds = "".join(f"{row[name]:>8.2f}s" for name in ("median_s", "min_s", "max_s"))
        print(f"{way:8}{seconds}{row['times_faster']:>7.1f}x  {MEANING[way]}")


def time_queries(library: Path, spec: dict[str, Any], rounds: int) -> dict[str, list[float]]:
    """Seconds by way, of MEANING; no warm one where helpers are off or cannot be."""
    helper = start(library, "cpu", idle_s=LOADING_S)
    warm = helper is not None and answers(library, helper)
    taken: dict[str, list[float]] = {way: [] for way in MEANING if warm or way != "warm"}
    try:
        for _ in range(rounds):
            text = f"bench {secrets.token_hex(6)}"
            taken["usual"].append(timed("-c", USUAL, str(spec["model"]), text))
            taken["cold"].append(query(library, text, "--no-helper"))
            if warm:
                taken["warm"].append(query(library, text + " again", "--helper"))
            taken["cached"].append(query(library, text, "--no-helper"))
    finally:
        if helper is not None:
            helper.terminate()
            helper.wait()
    return taken


def query(library: Path, text: str, option: str) -> float:
    return timed("-m", "vsearch", "query", text, "--library", str(library), "--device", "cpu", option)


def timed(*arguments: str) -> float:
    begin = time.perf_counter()
    done = subprocess.run([sys.executable, *arguments], capture_output=True, check=False)
    wall = time.perf_counter() - begin
    if done.returncode not in (0, 1) or b"Traceback" in done.stderr:
        sys.exit(f"a measured process failed: {done.stderr.decode()}")
    return wall


def answers(library: Path, helper: Process) -> bool:
    """Wait for the helper, or one that runs already, to have loaded."""
    deadline = time.monotonic() + LOADING_S
    question = Question(str(library), f"bench {secrets.token_hex(6)}", 1)
    while not (asked := ask(question, "cpu")).answer:
        if time.monotonic() > deadline or (helper.poll() is not None and not asked.running):
            return False
        time.sleep(0.1)
    return True


def figures(seconds: list[float], usual: float) -> dict[str, float]:
    median = statistics.median(seconds)
    return {
        "median_s": round(median, 3),
        "min_s": round(min(seconds), 3),
        "max_s": round(max(seconds), 3),
        "times_faster": round(usual / median, 2),
    }


if __name__ == "__main__":
    main()
