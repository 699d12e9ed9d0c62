"""Every verb, run on one library in one child process."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from tests.media import write_video

ROOT = Path(__file__).parent.parent
NAMES = ("one", "two", "three", "four")
CACHED = "a sentence asked before"
SERVERS = ("serve", "web")
WRITERS = ("verify --repair", "index", "adopt", "forget")


class Ran(NamedTuple):
    """What a command did."""

    code: int
    out: str
    err: str

    @property
    def fault(self) -> str | None:
        """A traceback, or what we call an unexpected fault."""
        lines = (self.out + "\n" + self.err).splitlines()
        return next((each for each in lines if "unexpected fault" in each or "Traceback" in each), None)


def make_library(folder: Path) -> Path:
    """Four small videos in `folder`/videos, indexed with the built-in model, and a sentence asked before."""
    (folder / "videos").mkdir(parents=True)
    for i, name in enumerate(NAMES):
        write_video(folder / "videos" / f"{name}.mp4", frames=40 + 20 * i, fps=10)
    (folder / "labels.csv").write_text(
        "video,caption\n" + "".join(f"{name},the picture of {name}\n" for name in NAMES)
    )
    marks = {
        name: {
            "subset": "training",
            "duration": 4.0,
            "annotations": [{"segment": [0.5, 2.0], "label": "run"}],
        }
        for name in NAMES
    }
    (folder / "marks.json").write_text(json.dumps({"database": marks}))
    place = folder / "library"
    made = run(
        [["index", str(folder / "videos"), "--progress", "none"], ["query", CACHED, "--no-helper"]], place
    )
    assert [each.code for each in made] in ([0, 0], [0, 1]), made
    return place


def commands(folder: Path, out: Path) -> dict[str, list[list[str]]]:
    """Of each verb but the server, commands; `folder`: of `make_library`, `out`: where they may write.

    `WRITERS` are all that may change the library, notes apart, and come last.
    """
    videos = [str(folder / "videos" / f"{name}.mp4") for name in NAMES]
    annotated = ["--dataset", "plain", "--annotations", str(folder / "labels.csv"),
                 "--videos", str(folder / "library"), "--cache", str(out / "cache")]  # fmt: skip
    return {
        "query": [
            ["query", CACHED, "--no-helper"], ["query", "one that is new", "--no-helper"],
            ["query", "another", "--in", "one.mp4", "--no-helper"],
        ],
        "similar": [["similar", "two.mp4@1", "--json"]],
        "clip": [
            ["clip", "1", "-f", "-o", str(out / "hit.mp4")],
            ["clip", "one.mp4", "--start", "1", "--end", "2", "-f", "-o", str(out / "named.mp4")],
        ],
        "localize": [["localize", "--actions", "archery, rowing", "--threshold", "0"]],
        "classify": [["classify", *videos, "--actions", "archery, rowing"]],
        "status": [["status"], ["status", "--json"]],
        "ls": [["ls"], ["ls", "--json"]],
        "info": [["info", "one.mp4"]],
        "doctor": [["doctor"]],
        "bench": [["bench", "--rounds", "1"]],
        "eval": [["eval", *annotated]],
        "train": [["train", *annotated, "--freeze-image", "--epochs", "1", "--batch", "2", "--out", str(out / "run")]],
        "train-proposals": [
            ["train-proposals", str(folder / "marks.json"), "--save", str(out / "generator"), "--steps", "2"]
        ],
        "models": [["models", "list", "mini"]],
        "verify": [["verify"]],
        "verify --repair": [["verify", "--repair"]],
        "index": [["index", str(folder / "videos"), "--progress", "none"]],
        "adopt": [["adopt", "--rollback"], ["adopt", str(out / "run")]],
        "forget": [["forget", "--yes", "one.mp4"]],
    }  # fmt: skip


def run(
    orders: Sequence[Sequence[str]],
    place: Path,
    *,
    before: str = "",
    preexec: Callable[[], None] | None = None,
) -> list[Ran]:
    """Run commands on the library `place`, one after another in one child. `before`: Python to run there first."""
    done = subprocess.run(
        [sys.executable, "-c", f"from tests.verbs import child\n{before}\nchild()"],
        input=json.dumps(orders), capture_output=True, text=True, timeout=600, cwd="/", preexec_fn=preexec,
        env=environment(place),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return [Ran(*each) for each in json.loads(done.stdout)]


def environment(place: Path) -> dict[str, str]:
    """A child's: the library `place`, and this folder to import from."""
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {
        **os.environ, "VSEARCH_LIBRARY": str(place), "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(paths)
    }  # fmt: skip


def child() -> None:
    """Of the child: run the commands that are on standard input."""
    answers = [run_here(order) for order in json.load(sys.stdin)]
    print(json.dumps(answers))


def run_here(order: Sequence[str]) -> Ran:
    """Run a command in this process."""
    from vsearch.cli import main
    from vsearch.library import reading

    reading._warned.clear()  # what is said once a process is said in each run
    out, err = (_captured() for _ in range(2))
    code: str | int | None = 0
    before, sys.argv, sys.stdin = (sys.argv, sys.stdin), ["vsearch", *order], io.StringIO()
    heard, logging.root.handlers = logging.root.handlers, []  # pytest's: else warnings do not reach stderr
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            main()
    except SystemExit as end:
        code = end.code
    except BaseException as error:
        code = -1
        print(f"Traceback: {error!r}", file=err)
    finally:
        sys.argv, sys.stdin = before
        logging.root.handlers = heard
    return Ran(code if isinstance(code, int) else 2, _text(out), _text(err))


def _captured() -> io.TextIOWrapper:
    """A stream as the command line makes them: with bytes, and escapes for what is no letter."""
    return io.TextIOWrapper(io.BytesIO(), encoding="utf-8", errors="backslashreplace", write_through=True)


def _text(stream: io.TextIOWrapper) -> str:
    stream.flush()
    assert isinstance(stream.buffer, io.BytesIO)
    return stream.buffer.getvalue().decode(errors="surrogateescape")
