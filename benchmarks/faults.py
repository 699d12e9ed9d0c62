"""Kills and damage: is anything lost, is a wrong answer ever given in silence, does a verb end in a traceback?

    python -m benchmarks.faults                       # both
    python -m benchmarks.faults --kills 60            # only kills
    python -m benchmarks.faults --damage              # only damage
    python -m benchmarks.faults --damage --part 1/3   # every third kind, from the second on: parts run side by side
    python -m benchmarks.faults --only "row: "        # kinds with this in their names

Kills: `index`, `forget`, `adopt`, `adopt --rollback` and `verify --repair` run in a child that kills itself (SIGKILL) at
its n-th durability event: a write, fsync, rename, link, unlink, a connection to the catalogue, a table made, a commit.
Then `verify` must find the library whole, and the next run must end with the answers of one that was never disturbed.
Damage: a copy of a sound library is damaged in one way (see damages.py), then it is asked, listed, indexed, asked,
verified, mended, indexed and asked again. Videos are made for it; the built-in model answers. Exit code 1 on any silent wrong answer, unexpected fault, or
library that was not whole after a kill.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.damages import VOCABULARY, Damage, damages, edit, flip, frame_file, index_file

os.environ["VSEARCH_HELPER"] = "0"
ROOT = Path(__file__).parent.parent
CACHED, NEW, NEWER = "a red screen with stripes", "a bright yellow picture", "something green and round"
COLOURS = {"red": (200, 30, 30), "green": (30, 180, 40), "blue": (30, 40, 200), "grey": (120, 120, 120)}
QUESTIONS = {
    "cached": ["query", CACHED, "--json", "-n", "20"],
    "new": ["query", NEW, "--json", "-n", "20"],
    "inside": ["query", CACHED, "--in", "grey.mp4", "--json"],
    "similar": ["similar", "green.mp4@3", "--json"],
    "localize": ["localize", "--actions", "archery, rowing", "--threshold", "0", "--format", "activitynet"],
    "classify": ["classify", "--vocabulary", VOCABULARY, "--json"],
}
NEWER_QUESTIONS = {**QUESTIONS, "newer": ["query", NEWER, "--json", "-n", "20"]}
Answers = dict[str, "Run"]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=None, metavar="N")
    parser.add_argument("--damage", action="store_true")
    parser.add_argument(
        "--only", default="", help="kills or damage whose name has this in it; several: with | between"
    )
    parser.add_argument("--part", default="0/1", metavar="I/N", help="every N-th case from number I on")
    parser.add_argument("--child", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        return child(int(args.child[0]), Path(args.child[1]), args.child[2:])
    both = args.kills is None and not args.damage
    part, parts = map(int, args.part.split("/"))
    faults = 0
    with tempfile.TemporaryDirectory() as scratch:
        plain = sound_library(Path(scratch) / "plain")
        trained = Path(scratch) / "trained"
        work = [each for each in work_of(plain, trained) if chosen(each[0], args.only)]
        kinds = {
            base: [each for each in damages(base is trained) if chosen(each[0], args.only)]
            for base in (plain, trained)
        }
        if kinds[trained] or any(each[0].startswith("adopt") for each in work):
            adopted(plain, trained)
        if args.kills or both:
            faults += kills(Path(scratch), kill_points(Path(scratch), work, args.kills or 60)[part::parts])
        if args.damage or both:
            for base in (plain, trained):
                faults += damage(Path(scratch), base, kinds[base][part::parts])
    return 1 if faults else 0


def chosen(title: str, only: str) -> bool:
    return any(part in title for part in only.split("|"))


# Running


@dataclass(frozen=True)
class Run:
    """What a verb did. `fault`: a traceback or what we call an unexpected fault."""

    code: int
    out: str
    err: str

    @property
    def fault(self) -> str | None:
        lines = (self.out + "\n" + self.err).splitlines()
        return next((line for line in lines if "unexpected fault" in line or "Traceback" in line), None)

    @property
    def said(self) -> str:
        return (self.out + self.err).strip().replace("\n", " | ")[:400]

    def answer(self) -> Any:
        """Without what is of this copy of the library; None when there is no answer."""
        if self.code not in (0, 1):
            return None
        found = _essence(json.loads(self.out))
        if isinstance(
            found.get("results"), list
        ):  # of clips, in the order of the library, or in that of passing files
            found["results"].sort(key=lambda each: each["path"])
        return found


def _essence(value: Any) -> Any:
    """Paths as names, scores to three places, and no label of the question."""
    if isinstance(value, dict):
        return {_essence(key): _essence(each) for key, each in value.items() if key != "query"}
    if isinstance(value, list):
        return [_essence(each) for each in value]
    if isinstance(value, float):
        return round(value, 3)
    return Path(value).name if isinstance(value, str) and value.startswith("/") else value


def run(case: Path, verb: str, *more: str) -> Run:
    """A verb in this process, on the library of a case."""
    from typer.testing import CliRunner

    from vsearch.cli import command_line
    from vsearch.library.catalogue import reading

    reading._warned.clear()  # what is said once a process is said in each run
    app = command_line(verb, "models")  # a second verb, so that the first is named
    done = CliRunner().invoke(app, [verb, *more, "--library", str(case / "library")])
    err = done.stderr
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        err += f"\nTraceback: {done.exception!r}"
    return Run(done.exit_code, done.stdout, err)


def index(case: Path) -> Run:
    return run(case, "index", str(case / "videos"), "--progress", "none")


def ask(case: Path, questions: dict[str, list[str]] = QUESTIONS) -> Answers:
    """Answers by question; clips are named where a verb asks for them."""
    videos = [str(case / "videos" / f"{name}.mp4") for name in COLOURS]
    return {
        name: run(case, *question, *(videos if question[0] == "classify" else ()))
        for name, question in questions.items()
    }


def sound_library(base: Path) -> Path:
    (base / "videos").mkdir(parents=True)
    for i, (name, colour) in enumerate(COLOURS.items()):
        make_video(base / "videos" / f"{name}.mp4", colour, seconds=6 + 7 * i, seed=i)
        (base / "examples" / name).mkdir(parents=True)
        shutil.copy(base / "videos" / f"{name}.mp4", base / "examples" / name)
    made = [
        index(base),
        run(
            base,
            "classify",
            str(base / "videos" / "red.mp4"),
            "--examples",
            str(base / "examples"),
            "--save",
            VOCABULARY,
        ),
    ]
    made += [each for name, each in ask(base).items() if name != "new"]
    _check([*made, run(base, "verify")])
    _forget_sentence(base, NEW)
    return base


def adopted(plain: Path, base: Path) -> Path:
    """The same with a trained head adopted, whose weights are random: what a short training would leave."""
    import torch

    from vsearch.models import load_backbone
    from vsearch.models.recipes import VideoText, load_recipe
    from vsearch.models.recipes.checkpoint import save

    shutil.copytree(plain, base)
    backbone = load_backbone("mini", "cpu")
    trained = VideoText(load_recipe("efficient-prompt").on_frozen_frames(), backbone)
    torch.manual_seed(0)
    with torch.no_grad():
        for _, parameter in trained.trained():
            parameter.add_(0.02 * torch.randn_like(parameter))
    for folder in (plain, base):
        save(folder / "checkpoint", trained, backbone, {"name": "made up"}, {}, 0)
    _check([run(base, "adopt", str(base / "checkpoint")), *ask(base).values(), run(base, "verify")])
    _forget_sentence(base, NEW)
    return base


def _check(made: Sequence[Run]) -> None:
    for done in made:
        if done.code not in (0, 1) or done.fault:
            raise SystemExit(f"the sound library is none: {done}")


def _forget_sentence(base: Path, text: str) -> None:
    """And bring the log into the file, so that a copy is one file."""
    with sqlite3.connect(base / "library" / "catalogue.sqlite") as connection:
        connection.execute("DELETE FROM text_vectors WHERE text = ?", (text,))
        connection.commit()
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()


def make_video(path: Path, colour: tuple[int, int, int], seconds: int, seed: int) -> None:
    """A colour with moving stripes, 5 frames a second."""
    import av

    rng = np.random.default_rng(seed)
    with av.open(str(path), "w") as out:
        stream: Any = out.add_stream("mpeg4", rate=5)
        stream.width, stream.height, stream.pix_fmt = 160, 120, "yuv420p"
        for i in range(5 * seconds):
            image = np.full((120, 160, 3), colour, np.uint8)
            image[(4 * i) % 120 : (4 * i) % 120 + 12] = rng.integers(0, 255, 3)
            image[:, (3 * i * seed) % 160 : (3 * i * seed) % 160 + 9] = 255 - np.array(colour)
            for packet in stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")):
                out.mux(packet)
        for packet in stream.encode(None):
            out.mux(packet)


def copied(base: Path, to: Path) -> Path:
    if to.exists():
        shutil.rmtree(to)
    return Path(shutil.copytree(base, to))


# Kills


def child(nth: int, events: Path, arguments: list[str]) -> int:
    """Of the child: run a verb and die at its n-th durability event; 0: live, and write down what they were."""
    from sqlalchemy import event
    from sqlalchemy.engine import Engine

    from vsearch.library.files import HashingFile

    seen: list[str] = []

    def saw(kind: str) -> None:
        seen.append(kind)
        if len(seen) == nth:
            os.kill(os.getpid(), signal.SIGKILL)

    def watched(owner: Any, name: str) -> None:
        real = getattr(owner, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            saw(name)
            return real(*args, **kwargs)

        setattr(owner, name, call)

    for name in ("fsync", "replace", "unlink", "link"):
        watched(os, name)
    watched(HashingFile, "write")

    def sql(statement: str) -> None:
        if statement.startswith("COMMIT"):
            saw("commit")
        elif "CREATE TABLE" in statement:
            saw("table")

    @event.listens_for(Engine, "connect")
    def _trace(connection: Any, _record: Any) -> None:
        saw("connect")
        connection.set_trace_callback(sql)

    from vsearch.cli import main as command

    sys.argv = ["vsearch", *arguments]
    try:
        command()
    except SystemExit as end:
        events.write_text(json.dumps(seen))
        return int(end.code or 0)
    return 0


@dataclass(frozen=True)
class Kill:
    """A verb on a prepared copy of `base`, to be killed at its n-th event."""

    title: str
    base: Path
    prepare: Damage
    arguments: list[str]
    nth: int
    expected: dict[str, Any]

    @property
    def damaged(self) -> bool:
        """Whether there is something to mend until its verb has done it."""
        return self.prepare in (_damaged_index, _much_damage, _damaged_catalogue)


Work = tuple[str, Path, Damage, list[str], int]  # title, base, preparation, arguments, share of all kills


def work_of(plain: Path, trained: Path) -> list[Work]:
    new = ["index", "{case}/videos", "--progress", "none"]
    return [
        ("index, new library", plain, _no_library, new, 3),
        ("index, one more, one gone", plain, _one_more_one_gone, new, 3),
        ("index, its index damaged", plain, _damaged_index, new, 1),
        ("forget", plain, _nothing, ["forget", "red.mp4", "--yes"], 2),
        ("adopt", plain, _nothing, ["adopt", "{case}/checkpoint", "--progress", "none"], 3),
        ("adopt --rollback", trained, _nothing, ["adopt", "--rollback"], 1),
        ("verify --repair", plain, _much_damage, ["verify", "--repair"], 3),
        ("verify --repair, catalogue", plain, _damaged_catalogue, ["verify", "--repair"], 2),
    ]


def kill_points(scratch: Path, work: Sequence[Work], number: int) -> list[Kill]:
    """So many, spread evenly over the events of each verb; the first and the last, and one before there are tables."""
    shares = sum(share for *_, share in work)
    points = []
    for title, base, prepare, arguments, share in work:
        calm = copied(base, scratch / "calm")
        prepare(calm)
        events = killed(calm, 0, arguments)
        assert events is not None
        index(calm)
        expected = {name: done.answer() for name, done in ask(calm).items()}
        wanted = max(2, round(number * share / shares))
        places = {1 + round(i * (len(events) - 1) / (wanted - 1)) for i in range(wanted)}
        places |= {events.index("table") + 1} if "table" in events else set()
        points += [
            Kill(f"{title}, {events[n - 1]} {n} of {len(events)}", base, prepare, arguments, n, expected)
            for n in sorted(places)
        ]
    return points


def kills(scratch: Path, points: Sequence[Kill]) -> int:
    """The number of kills after which something was not as it should be."""
    bad = 0
    print(f"{'killed':52} {'verify':10} {'afterwards'}")
    for i, point in enumerate(points):
        for nth in range(point.nth, 0, -1):  # a run may have an event fewer than the one that was counted
            case = copied(point.base, scratch / f"kill {i}")
            point.prepare(case)
            if killed(case, nth, point.arguments) is None:
                break
        checked, problems = after_kill(case, point)
        bad += bool(problems)
        state = "whole" if checked.code == 0 else f"exit {checked.code}"
        print(f"{point.title:52} {state:10} {'; '.join(problems) or 'the same answers'}", flush=True)
        shutil.rmtree(case)
    print(f"kills: {len(points)}, with faults: {bad}")
    return bad


def after_kill(case: Path, point: Kill) -> tuple[Run, list[str]]:
    """What `verify` said at once, and what is not as if nothing had happened."""
    problems = []
    verb = point.arguments[0]
    checked = run(case, "verify")
    never_made = checked.code == 2 and "no library" in checked.err.lower()
    if checked.fault or not (checked.code == 0 or never_made or (point.damaged and checked.code == 3)):
        problems.append(f"verify: {checked.said}")
    asked = ask(case)
    problems += [f"{name}: {done.fault}" for name, done in asked.items() if done.fault]
    if verb == "verify":
        for rest in (run(case, "verify", "--repair"), run(case, "verify")):
            if rest.code != 0:
                problems.append(f"after a second repair: {rest.said}")
    elif verb != "index":
        filled = [each.format(case=case) for each in point.arguments]
        again = run(case, *filled)
        if again.fault or again.code not in (0, 2):  # done already: no such video, no head to go back to
            problems.append(f"again: {again.said}")
    last = index(case)
    if last.code != 0:
        problems.append(f"index: {last.said}")
    answers = {name: done.answer() for name, done in ask(case).items()}
    if verb == "adopt" and point.arguments[1] == "--rollback" and answers != point.expected:
        run(case, "adopt", "--rollback")  # it had been done: the second went forward again
        index(case)
        answers = {name: done.answer() for name, done in ask(case).items()}
    problems += [f"other answers: {name}" for name in answers if answers[name] != point.expected[name]]
    whole = run(case, "verify")
    if whole.code != 0:
        problems.append(f"in the end: {whole.said}")
    return checked, problems


def killed(case: Path, nth: int, arguments: Sequence[str]) -> list[str] | None:
    """The events of a run that was left alone, or ended before its `nth`; None: it was killed."""
    events = case / "events"
    filled = [each.format(case=case) for each in arguments]
    command = [sys.executable, "-m", "benchmarks.faults", "--child", str(nth), str(events), *filled]
    done = subprocess.run(
        [*command, "--library", str(case / "library")], capture_output=True, text=True, check=False, cwd=ROOT
    )
    if done.returncode == -signal.SIGKILL:
        return None
    if not events.exists():
        raise SystemExit(f"neither ended nor killed: {done}")
    seen: list[str] = json.loads(events.read_text())
    events.unlink()
    return seen


def _nothing(case: Path) -> None:
    pass


def _no_library(case: Path) -> None:
    vocabulary = case / "library" / "vocabularies"
    vocabulary.rename(case / "kept")
    shutil.rmtree(case / "library")
    (case / "library").mkdir()
    (case / "kept").rename(vocabulary)


def _one_more_one_gone(case: Path) -> None:
    make_video(case / "videos" / "yellow.mp4", (220, 210, 30), seconds=12, seed=9)
    (case / "videos" / "blue.mp4").rename(case / "blue.mp4")


def _damaged_index(case: Path) -> None:
    flip(index_file(case))


def _much_damage(case: Path) -> None:
    flip(frame_file(case))
    flip(index_file(case))
    edit("UPDATE moments SET start_ms = start_ms + 1000 WHERE id = (SELECT max(id) FROM moments)")(case)
    edit("UPDATE text_vectors SET vector = x'00'")(case)


def _damaged_catalogue(case: Path) -> None:
    catalogue = case / "library" / "catalogue.sqlite"
    catalogue.write_bytes(b"\xff" * 8192 + catalogue.read_bytes()[8192:])


# Damage


@dataclass(frozen=True)
class Outcome:
    """What came of a damaged library: answers before anything else is done, after `index`, and in the end; the other runs."""

    asked: tuple[Answers, Answers, Answers]
    runs: dict[str, Run]
    expected: dict[str, Any]
    usual: frozenset[str]  # what sound answers say on stderr

    @property
    def fault(self) -> str | None:
        every = [*self.runs.items(), *(pair for answers in self.asked for pair in answers.items())]
        return next((f"{name}: {each.fault}" for name, each in every if each.fault), None)

    def right(self, when: int) -> bool:
        return all(self._as_expected(name, each) for name, each in self.asked[when].items())

    @property
    def silent(self) -> list[str]:
        """Wrong, and not a word."""
        found = [
            f"{when}: {name}"
            for when, answers in zip(("first", "after index", "in the end"), self.asked, strict=True)
            for name, each in answers.items()
            if each.answer() is not None and not self._as_expected(name, each) and not self._told(each)
        ]
        if (
            self.runs["verify"].code == 0
        ):  # what an answer was refused for in the name of damage, it must see, too
            found += [
                f"verify: whole over {name}"
                for name, each in self.asked[1].items()
                if not self._as_expected(name, each) and (each.answer() is not None or "--repair" in each.err)
            ]
        if self.runs["repair"].code != 0 and "the library is whole" in self.runs["repair"].err:
            found.append("whole after findings")
        return found

    def _as_expected(self, name: str, each: Run) -> bool:
        return bool(each.answer() == self.expected[name])

    def _told(self, each: Run) -> bool:
        return bool(set(each.err.splitlines()) - self.usual)

    @property
    def word(self) -> str:
        return "FAULT" if self.fault else "SILENT" if self.silent else "mended" if self.right(2) else "honest"


def sound_answers(base: Path, scratch: Path) -> tuple[dict[str, Any], frozenset[str]]:
    """What a library says that nothing has happened to, and what it says beside."""
    case = copied(base, scratch / "sound")
    asked = ask(case, NEWER_QUESTIONS)
    _check([*asked.values()])
    usual = frozenset(line for each in asked.values() for line in each.err.splitlines())
    shutil.rmtree(case)
    return {name: each.answer() for name, each in asked.items()}, usual


def damaged(case: Path, make: Damage, sound: tuple[dict[str, Any], frozenset[str]]) -> Outcome:
    """Damage a case and go on with it as a user would."""
    make(case)
    first = ask(case)
    runs = {
        "ls": run(case, "ls"), "status": run(case, "status"), "info": run(case, "info", "grey.mp4"), "index": index(case)
    }  # fmt: skip
    then = ask(case)
    runs |= {
        "verify": run(case, "verify"),
        "repair": run(case, "verify", "--repair"),
        "index again": index(case),
    }
    return Outcome((first, then, ask(case, NEWER_QUESTIONS)), runs, *sound)


def damage(scratch: Path, base: Path, kinds: Sequence[tuple[str, Damage]]) -> int:
    """The number of kinds that had a silent wrong answer or an unexpected fault."""
    if not kinds:
        return 0
    sound = sound_answers(base, scratch)
    words: Counter[str] = Counter()
    print(f"{'damage':46} {'first':9} {'indexed':9} {'verify':7} {'repair':7} {'end':10} outcome")
    for i, (title, make) in enumerate(kinds):
        case = copied(base, scratch / f"case {i}")
        found = damaged(case, make, sound)
        words[found.word] += 1
        states = [
            "right" if found.right(when) else "refused" if any(a.answer() is None for a in answers.values()) else "told"
            for when, answers in enumerate(found.asked)
        ]  # fmt: skip
        codes = [found.runs[name].code for name in ("verify", "repair")]
        print(
            f"{title:46} {states[0]:9} {states[1]:9} {codes[0]:<7} {codes[1]:<7} {states[2]:10} {found.word}",
            flush=True,
        )
        for line in [*found.silent, *filter(None, [found.fault])]:
            print(f"    {line}")
        if found.word != "mended":
            for name in ("index", "verify", "repair", "index again"):
                print(f"    {name} said: {found.runs[name].said}", flush=True)
            for name, each in found.asked[2].items():
                if each.answer() != sound[0][name]:
                    print(f"    {name} in the end: {each.said}", flush=True)
        shutil.rmtree(case)
    print(f"damages: {len(kinds)}: " + ", ".join(f"{count} {word}" for word, count in sorted(words.items())))
    return words["FAULT"] + words["SILENT"]


if __name__ == "__main__":
    sys.exit(main())
