"""Every verb, on one small library: in this process, in one child process, or each in a process of its own."""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import logging
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, NamedTuple

from tests.media import write_video

ROOT = Path(__file__).parent.parent
NAMES = ("one", "two", "three", "four")
CACHED = "a sentence asked before"
SERVERS = ("serve", "web")
TRAINING = (
    "train",
    "train-proposals",
    "eval",
    "adopt",
    "reindex",
    "import-checkpoint",
)  # the verbs that need torch
WRITERS = ("verify --repair", "index", "adopt", "reindex", "forget-model", "forget")


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


def make_files(folder: Path) -> None:
    """What the verbs are run on, in `folder`: four small videos in videos/, annotations in two forms, a released
    file, a tiny model."""
    (folder / "videos").mkdir(parents=True)
    for i, name in enumerate(NAMES):
        path = write_video(folder / "videos" / f"{name}.mp4", frames=40 + 20 * i, fps=10)
        os.utime(path, (1, 1))  # not just now, when it might still grow
    captions = [f"{name},the picture of {name}" for name in NAMES]
    (folder / "labels.csv").write_text("\n".join(["video,caption", *captions]) + "\n")
    segments = [{"segment": [0.5, 2.0], "label": "run"}]
    marks = {name: {"subset": "training", "duration": 4.0, "annotations": segments} for name in NAMES}
    (folder / "marks.json").write_text(json.dumps({"database": marks}))
    write_released(folder / "released.safetensors")
    from tests.towers import write_tiny

    write_tiny(folder / "tiny")


def write_released(path: Path) -> None:
    """The smallest CLIP, as CLIP4Clip's authors save theirs."""
    import open_clip
    from safetensors.torch import save_file

    vision = {"image_size": 32, "layers": 1, "width": 64, "patch_size": 32, "head_width": 64}
    text = {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 1}
    clip = open_clip.model.CLIP(embed_dim=16, vision_cfg=vision, text_cfg=text, quick_gelu=True)
    save_file({f"clip.{name}": value for name, value in clip.half().state_dict().items()}, path)


def make_library(folder: Path) -> Path:
    """The files, indexed with the built-in model into `folder`/library, and a sentence asked before."""
    make_files(folder)
    place = folder / "library"
    orders = [["index", str(folder / "videos"), "--progress", "none"], ["query", CACHED, "--no-helper"]]
    made = run(orders, place)
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
        "eval": [["eval", *annotated]],
        "train": [["train", *annotated, "--freeze-image", "--epochs", "1", "--batch", "2", "--out", str(out / "run")]],
        "train-proposals": [
            ["train-proposals", str(folder / "marks.json"), "--save", str(out / "generator"), "--steps", "2"]
        ],
        "import-checkpoint": [
            ["import-checkpoint", str(folder / "released.safetensors"), "--as", "clip4clip", "--out", str(out / "imported")]
        ],
        "models": [["models", "list", "mini"]],
        "verify": [["verify"]],
        "verify --repair": [["verify", "--repair"]],
        "index": [["index", str(folder / "videos"), "--progress", "none"]],
        "adopt": [["adopt", str(out / "run")], ["adopt", "--rollback"]],
        "reindex": [["reindex", "--model", str(folder / "tiny"), "--progress", "none"]],
        "forget-model": [["forget-model", "--yes", "mini"]],
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
    return _asked(f"{before}\nchild()", orders, place, preexec)


def run_apart(orders: Sequence[Sequence[str]], place: Path, streams: str = "", **more: str) -> list[Ran]:
    """Run commands on the library `place`, each in a process of its own, which begins as a fork of one that has
    imported what they need. `streams`: as a shell writes it, one of `STREAMS`; `more`: to be in the environment."""
    return _asked(f"forks({streams!r})", orders, place, None, more)


def _asked(
    code: str,
    orders: Sequence[Sequence[str]],
    place: Path,
    preexec: Callable[[], None] | None,
    more: Mapping[str, str] | None = None,
) -> list[Ran]:
    done = subprocess.run(
        [sys.executable, "-c", f"from tests.verbs import child, forks\n{code}"],
        input=json.dumps(orders), capture_output=True, text=True, timeout=600, cwd="/", preexec_fn=preexec,
        env={**environment(place), **(more or {})},
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


def _full(number: int) -> None:
    os.dup2(os.open("/dev/full", os.O_WRONLY), number)


def _left(number: int) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    os.dup2(writing, number)


STREAMS: dict[str, tuple[int, Callable[[int], None]]] = {
    "> /dev/full": (1, _full), ">&-": (1, os.close), "2>&-": (2, os.close), "2> /dev/full": (2, _full),
    "<&-": (0, os.close), "| true": (1, _left),
}  # fmt: skip


def forks(streams: str) -> None:
    """Of the child: run the commands that are on standard input, each in a fork."""
    orders, answers = json.load(sys.stdin), []
    trained = ("torch", "open_clip") if any(order[0] in TRAINING for order in orders) else ()
    for slow in (*trained, "faiss", "vsearch.library.catalogue.schema", "vsearch.retriever"):
        importlib.import_module(slow)
    import vsearch.cli

    for order in orders:
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            if not (pid := os.fork()):
                for number, file in enumerate((os.open(os.devnull, os.O_RDONLY), out.fileno(), err.fileno())):
                    os.dup2(file, number)
                if streams:
                    number, spoil = STREAMS[streams]
                    spoil(number)
                    if spoil is os.close:  # as Python finds it when it begins
                        setattr(sys, ("stdin", "stdout", "stderr")[number], None)
                sys.argv = [
                    "vsearch",
                    *(os.fsdecode(each.encode(errors="surrogateescape")) for each in order),
                ]
                vsearch.cli.program()
            code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            answers.append((code, *(_read(file) for file in (out, err))))
    print(json.dumps(answers))


def _read(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode(errors="replace")


def run_here(order: Sequence[str]) -> Ran:
    """Run a command in this process."""
    from vsearch.cli import main
    from vsearch.library.catalogue import reading

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
