"""What every verb shares: options, errors, and safe, scriptable output."""

from __future__ import annotations

import contextlib
import functools
import json
import math
import os
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, ParamSpec, TypeVar

import typer

from vsearch.cli.streams import ReaderGone
from vsearch.errors import VsearchError

P = ParamSpec("P")
R = TypeVar("R")

LibraryOption = Annotated[
    Path | None,
    typer.Option("--library", metavar="DIR", help="Library folder (default: found upward, like git).", show_default=False),
]  # fmt: skip
DeviceOption = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps (Apple).")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]

SCHEMA_VERSION = 1  # of every JSON object we print; see docs/json.md

EXIT_NOTHING, EXIT_ERROR, EXIT_SOME_FAILED, EXIT_INTERRUPTED = 1, 2, 3, 130


def verb(function: Callable[P, R]) -> Callable[P, R]:
    """Turn what can go wrong in a verb into one line on stderr and the right exit code."""

    @functools.wraps(function)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            _check_values(kwargs)
            return function(*args, **kwargs)
        except ReaderGone as end:
            raise typer.Exit(end.exit_code) from None
        except VsearchError as error:
            note(f"vsearch: {error}")
            raise typer.Exit(error.exit_code) from None
        except KeyboardInterrupt:
            note("vsearch: interrupted; what was finished is kept")
            raise typer.Exit(EXIT_INTERRUPTED) from None
        except typer.Abort:  # at a question
            note("vsearch: nothing was changed")
            raise typer.Exit(EXIT_INTERRUPTED) from None
        except Exception as error:
            if isinstance(error, typer.Exit) or os.environ.get("VSEARCH_DEBUG"):
                raise
            if isinstance(error, FileNotFoundError) and not _stand_somewhere():
                note(
                    "vsearch: the folder that you are in was deleted; go to another and run the command again"
                )
                raise typer.Exit(EXIT_ERROR) from None
            if isinstance(error, OSError) and error.filename is not None and error.strerror:
                where = os.fsdecode(error.filename)
                note(
                    f"vsearch: {where} cannot be used ({error.strerror.lower()}): check its disk and permissions"
                )
                raise typer.Exit(EXIT_ERROR) from None
            kind = type(error).__name__
            note(
                f"vsearch: unexpected fault ({kind}: {error}); VSEARCH_DEBUG=1 shows where, please report it"
            )
            raise typer.Exit(EXIT_ERROR) from None

    return guarded


def _stand_somewhere() -> bool:
    """Whether the working directory still exists."""
    try:
        os.getcwd()
    except OSError:
        return False
    return True


def _check_values(options: Mapping[str, Any]) -> None:
    """Options of one kind are refused for one reason, whatever the verb. Raises VsearchError."""
    for name, value in options.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise VsearchError(f"--{name.replace('_', '-')} takes a number such as 0.5, not {value}")
    device = options.get("device", "auto")
    if not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?(,cuda:\d+)*", device):
        raise VsearchError(f"unknown device {device!r}; use auto, cpu, cuda, cuda:N or mps")


def note(text: str) -> None:
    """A line for the person, on stderr."""
    with contextlib.suppress(OSError):  # the terminal may be gone
        print(printable(text), file=sys.stderr, flush=True)


def ask_first(verb: str, what: str, *, yes: bool) -> None:
    """Go on only when a person, or `yes`, says so. Raises VsearchError where nobody can be asked."""
    if yes:
        return
    if sys.stdin is None or not sys.stdin.isatty():
        raise VsearchError(f"nobody can be asked here: --yes {verb}s {what}; nothing was changed")
    if not typer.confirm(f"{verb.capitalize()} {what}?", err=True):
        raise typer.Exit(EXIT_NOTHING)


def counted(count: int, one: str, many: str) -> str:
    """'1 video', '2 videos'."""
    return f"{count} {one if count == 1 else many}"


def print_json(value: Any) -> None:
    text = json.dumps(value, ensure_ascii=False)
    ascii_only = not (sys.stdout.encoding or "").lower().startswith("utf")
    if ascii_only or not text.isprintable() or any(0xD800 <= ord(c) <= 0xDFFF for c in text):
        text = json.dumps(value)  # file names that are not UTF-8 stay reversible as \udcXX escapes
    print(text)


def printable(text: str) -> str:
    """File names are hostile input: control characters and undecodable bytes become visible escapes."""
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text
    )


def timecode(ms: int) -> str:
    """Milliseconds -> HH:MM:SS.mmm"""
    seconds, ms = divmod(ms, 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02d}:{minutes:02d}:{seconds:02d}.{ms:03d}"


def parse_time(text: str) -> int:
    """'95', '1:35', '00:01:35.250' -> milliseconds. Raises VsearchError."""
    try:
        parts = [float(p) for p in text.strip().split(":")]
        if not 1 <= len(parts) <= 3 or any(p < 0 for p in parts):
            raise ValueError
        return round(sum(p * 60**i for i, p in enumerate(reversed(parts))) * 1000)
    except (ValueError, OverflowError):  # nan, inf
        raise VsearchError(f"not a time: {text!r}; write seconds (95.5) or HH:MM:SS.mmm") from None


def short_path(path: str | Path) -> str:
    """Relative to the working directory when that is shorter."""
    try:
        relative = os.path.relpath(path)
    except OSError:  # a working directory that was deleted
        return str(path)
    return relative if len(relative) < len(str(path)) else str(path)


def human_size(count: float) -> str:
    for unit in ("B", "KB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
