"""Kill -9 an indexing run at random moments, and see that nothing is lost or half-visible.

    python benchmarks/kill.py ../shared/data/videos/clips --kills 20

After each kill `vsearch verify` must find the library whole. A run that finishes is compared with one that was never
disturbed: the answers to some queries must be equal. Then it begins again, until there were so many kills.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

QUERIES = ["a man playing the drums", "waves on a beach"]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--model", default="mini")
    args = parser.parse_args()
    chance = random.Random(args.seed)
    with tempfile.TemporaryDirectory() as scratch:
        calm, disturbed = Path(scratch) / "calm", Path(scratch) / "disturbed"
        index(args.folder, calm, args.model)
        print(f"undisturbed: {counts(calm)}")
        faults = kills = rounds = 0
        while kills < args.kills:
            done_at_kill = run_and_kill(args.folder, disturbed, args.model, chance)
            if (
                done_at_kill is None
            ):  # finished in spite of the kills before: begin again with an empty library
                rounds += 1
                faults += not same_answers(calm, disturbed)
                shutil.rmtree(disturbed)
                continue
            kills += 1
            whole = "no library yet"
            if (disturbed / "catalogue.sqlite").exists():
                checked = subprocess.run(command("verify", None, disturbed), capture_output=True, text=True)
                none_yet = checked.returncode == 2 and "no library at" in checked.stderr
                faults += checked.returncode != 0 and not none_yet
                whole = "whole" if checked.returncode == 0 else (checked.stdout + checked.stderr).strip()
            print(f"{kills:2}: killed {done_at_kill}, {whole}, {counts(disturbed)}", flush=True)
        index(args.folder, disturbed, args.model)
        same = all(answers(calm, q) == answers(disturbed, q) for q in QUERIES)
        print(
            f"afterwards: {counts(disturbed)}; answers equal to the undisturbed run: {same}; faults: {faults}"
        )
    return 0 if same and not faults else 1


def run_and_kill(folder: Path, library: Path, model: str, chance: random.Random) -> str | None:
    """Start a run and kill it a random moment after a random report of progress; None when it finished first."""
    reports_to_see = chance.choice([0, 1, chance.randrange(2, 20), chance.randrange(2, 120)])
    extra_s = chance.uniform(0, 0.5)
    process = subprocess.Popen(
        [*command("index", folder, library, "--model", model), "--progress", "json"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    last: dict[str, object] = {}
    for seen, line in enumerate(process.stderr):
        last = json.loads(line) if line.startswith("{") else last
        if seen >= reports_to_see:
            break
    try:
        process.wait(extra_s)
        return None
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        process.wait()
        return f'{extra_s:.2f} s after "{last.get("stage")}", video {last.get("videos_done")} of {last.get("videos")}'


def command(verb: str, folder: Path | None, library: Path, *more: str) -> list[str]:
    return [
        sys.executable,
        "-m",
        "vsearch",
        verb,
        *([str(folder)] if folder else []),
        *more,
        "--library",
        str(library),
    ]


def index(folder: Path, library: Path, model: str) -> None:
    subprocess.run([*command("index", folder, library, "--model", model), "--progress", "none"], check=True)


def same_answers(one: Path, other: Path) -> bool:
    return all(answers(one, q) == answers(other, q) for q in QUERIES)


def counts(library: Path) -> str:
    done = subprocess.run([*command("status", None, library), "--json"], capture_output=True, text=True)
    return str(json.loads(done.stdout)["videos"]) if done.returncode == 0 else "nothing recorded"


def answers(library: Path, text: str) -> list[tuple[object, ...]]:
    done = subprocess.run(
        command("query", None, library, text, "--json", "-n", "20", "--no-helper"),
        capture_output=True,
        text=True,
    )
    return [(h["path"], h["start"], h["end"], h["score"]) for h in json.loads(done.stdout)["hits"]]


if __name__ == "__main__":
    sys.exit(main())
