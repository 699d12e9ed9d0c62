"""How long a query takes, beside the usual way, measured in one run so that the ratios hold on a busy machine."""

from __future__ import annotations

import json
import os
import secrets
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from vsearch import process
from vsearch.errors import VsearchError
from vsearch.retriever.helper import ask, start
from vsearch.retriever.question import Question

if TYPE_CHECKING:
    from vsearch.library import EncoderInfo

USUAL, COLD, WARM, CACHED = "usual", "cold", "warm", "cached"
_LOADING_S, _LONGEST_S = 120.0, 600.0


def time_queries(library: Path, live: EncoderInfo, rounds: int) -> dict[str, list[float]]:
    """Wall seconds of whole processes, a list a way, the ways taking turns:

    usual   the whole model loaded through open_clip, one sentence encoded; no library, no search
    cold    `vsearch query` of a new sentence, alone
    warm    `vsearch query` of a new sentence, a helper running; absent where helpers are off or cannot be
    cached  `vsearch query` of a sentence asked before, alone: no helper, no model

    Raises VsearchError when a query fails.
    """
    helper = start(library, "cpu", idle_s=_LOADING_S)
    warm = helper is not None and _answers(library, helper)
    taken: dict[str, list[float]] = {way: [] for way in (USUAL, COLD, WARM, CACHED) if warm or way != WARM}
    try:
        for _ in range(rounds):
            text = f"bench {secrets.token_hex(6)}"
            taken[USUAL].append(_timed("vsearch.retriever.bench:usual", [], [live.spec, text]))
            taken[COLD].append(_query(library, text, "--no-helper"))
            if warm:
                taken[WARM].append(_query(library, text + " again", "--helper"))
            taken[CACHED].append(_query(library, text, "--no-helper"))
    finally:
        if helper is not None:
            helper.terminate()
            helper.wait()
    return taken


def _query(library: Path, text: str, option: str) -> float:
    command = ["query", text, "--library", os.path.abspath(library), "--device", "cpu", option]
    return _timed("vsearch.cli:program", command)


def usual() -> None:
    """Of a child: the whole model, one sentence."""
    from vsearch.models import load_encoder

    spec, text = json.load(sys.stdin)
    load_encoder(spec, "cpu").embed_texts([text])


def _timed(target: str, arguments: list[str], order: object = None) -> float:
    begin = time.perf_counter()
    done = process.run(target, order, arguments=arguments, deadline_s=_LONGEST_S)
    wall = time.perf_counter() - begin
    if done.returncode not in (0, 1) or b"Traceback" in done.stderr:
        raise VsearchError(f"a measured query failed: {done.last_line or 'no message'}")
    return wall


def _answers(library: Path, helper: process.Process) -> bool:
    """Wait for the helper, or one that runs already, to have loaded."""
    deadline = time.monotonic() + _LOADING_S
    question = Question(str(library), f"bench {secrets.token_hex(6)}", 1)
    while not (asked := ask(question, "cpu")).answer:
        if time.monotonic() > deadline or (helper.poll() is not None and not asked.running):
            return False
        time.sleep(0.1)
    return True
