"""What a process of the training command is given to do."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from vsearch.models.mini.train.distill import distill
from vsearch.models.mini.train.teacher import embed_sentences


def learn_text(data: Path, work: Path, steps: int) -> None:
    stage(work, "teacher", "sentences.json", embed_sentences, data, work)
    stage(work, "distil", "text.pt", distill, work, steps)


def stage(work: Path, name: str, product: str, run: Callable[..., object], *given: object) -> None:
    """Run a stage unless its product is there."""
    if product and (work / product).is_file():
        print(f"{name}: {work / product} is there, skipped")
        return
    begun = time.time()
    run(*given)
    line = f"{time.strftime('%Y-%m-%d %H:%M:%S')} {name}: {time.time() - begun:.0f} s"
    print(line, flush=True)
    with open(work / "log.txt", "a") as log:
        log.write(line + "\n")
