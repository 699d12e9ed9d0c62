"""The `vsearch` command. One file a verb: read arguments, call, print."""

from __future__ import annotations

import os
import sys

import vsearch


def _leave_working_directory() -> None:
    """Take the working directory off the search path, unless it is this checkout."""
    try:
        here = os.path.realpath(os.getcwd())
    except OSError:  # it was deleted
        here = ""
    if os.path.realpath(os.path.dirname(os.path.dirname(vsearch.__file__))) != here:
        sys.path[:] = [p for p in sys.path if os.path.isabs(p) and os.path.realpath(p) != here]


# An empty entry of PYTHONPATH means the working directory, where a user's downloads may lie. Before any other import.
if any(not entry.strip("./") for entry in os.environ.get("PYTHONPATH", "-").split(os.pathsep)):
    _leave_working_directory()

import atexit  # noqa: E402
import contextlib  # noqa: E402
import importlib  # noqa: E402
import signal  # noqa: E402
from typing import Annotated  # noqa: E402

import typer  # noqa: E402

from vsearch.cli import streams  # noqa: E402
from vsearch.cli.common import note  # noqa: E402
from vsearch.errors import VsearchError  # noqa: E402

# verb: module and function, in the order of the help; only the verb asked for is loaded
VERBS = {
    "index": "index:index",
    "query": "query:query",
    "similar": "similar:similar",
    "clip": "clip:clip",
    "localize": "localize:localize",
    "classify": "classify:classify",
    "status": "status:status",
    "ls": "ls:ls",
    "info": "ls:info",
    "forget": "forget:forget",
    "verify": "verify:verify",
    "doctor": "doctor:doctor",
    "serve": "serve:serve",
    "web": "serve:serve",
    "train": "train:train",
    "eval": "eval:evaluate",
    "adopt": "adopt:adopt",
    "reindex": "reindex:reindex",
    "forget-model": "forget_model:forget_model",
    "import-checkpoint": "import_checkpoint:import_checkpoint",
    "train-proposals": "train_proposals:train_proposals",
    "models": "models:models",
}
_HIDDEN = {"web"}


def command_line(*verbs: str) -> typer.Typer:
    """The command with these verbs."""
    app = typer.Typer(
        name="vsearch",
        help="Find the moment in your videos that a sentence describes.\n\n"
        'Start: `vsearch index FOLDER`, then `vsearch query "a dog running on grass"`.',
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_options)
    for verb in verbs:
        module, _, name = VERBS[verb].partition(":")
        found = getattr(importlib.import_module(f"vsearch.cli.{module}"), name)
        if isinstance(found, typer.Typer):
            app.add_typer(found, name=verb)
        else:
            app.command(verb, hidden=verb in _HIDDEN)(found)
    return app


def _version(asked: bool) -> None:
    if asked:
        print(f"vsearch {vsearch.__version__}")
        raise typer.Exit


def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


def main() -> None:
    asked = sys.argv[1:2]
    command_line(*(asked if asked and asked[0] in VERBS else VERBS))()


def program() -> None:
    """`vsearch` as a process: `main`, and an end without taking torch apart, which takes over a second."""
    status: list[int] = []

    def leave() -> None:
        if status and "torch" in sys.modules:
            with contextlib.suppress(OSError, ValueError):  # nobody reads any more
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(status[0])

    atexit.register(leave)  # the first, so it is the last to be called
    streams.guard()
    _interrupt_on_request()
    code: str | int | None = 0
    try:
        main()
    except KeyboardInterrupt:  # before a verb was at work
        code = 130
    except SystemExit as end:
        code = end.code
    except streams.ReaderGone:  # of the help
        pass
    except VsearchError as error:  # of the help, too
        note(f"vsearch: {error}")
        code = error.exit_code
    code = _flushed(code)
    if isinstance(code, int):
        status.append(code)
    sys.exit(code)


def _flushed(code: str | int | None) -> str | int | None:
    """The exit code, once what was printed has left this process."""
    try:
        sys.stdout.flush()
    except VsearchError as error:
        if error.exit_code:
            note(f"vsearch: {error}")
            return error.exit_code
    return code


def _interrupt_on_request() -> None:
    """SIGTERM (systemd, docker stop, shutdown) and SIGHUP (the terminal is closed) end a verb as Ctrl-C does. The first
    does; others, which often follow, do not disturb it in finishing."""
    kinds = [signal.SIGTERM, signal.SIGHUP] if hasattr(signal, "SIGHUP") else [signal.SIGTERM]

    def interrupt(number: int, frame: object) -> None:
        for kind in asked:  # no SIG_IGN, which children would inherit
            signal.signal(kind, lambda number, frame: None)
        raise KeyboardInterrupt

    asked = [kind for kind in kinds if signal.getsignal(kind) == signal.SIG_DFL]  # nohup stays nohup
    for kind in asked:
        signal.signal(kind, interrupt)
