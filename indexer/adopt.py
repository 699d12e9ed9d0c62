"""Another head for a library, from the frame vectors that it keeps: no video is opened.

The new generation is made beside the one that answers, and the switch is one transaction. Killed before, the old head
answers as ever; killed after, the new one does. The old generation stays, so going back is only a switch.
"""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vsearch.errors import LibraryError, ModelError
from vsearch.indexer.shared_progress import Progress, Report, shared
from vsearch.indexer.upkeep import register_head, renew_moments, score_neutral
from vsearch.library import Library
from vsearch.records import Each, EncoderInfo


@contextlib.contextmanager
def side_by_side() -> Iterator[Each]:
    """Gives what `map` gives, in the same order, on as many threads as torch may use.

    Items are taken in the caller's thread, not many ahead of the results. What an item raises comes in its place.
    """
    import torch

    threads = torch.get_num_threads()
    pool = ThreadPoolExecutor(threads, "vsearch-lane", torch.set_num_threads, (1,))

    def ordered(work: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
        waiting: deque[Future[Any]] = deque()
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) > 2 * threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()

    try:
        yield ordered
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)  # what a thread has set counts for threads to come, too


@dataclass(frozen=True)
class Adopted:
    """What now answers. `moments` in its index; `changed` is False when it answered before already; `behind`: videos
    that were indexed since and that the next `vsearch index` brings to this head."""

    head: str
    former: str
    moments: int
    seconds: float
    changed: bool = True
    behind: int = 0


def adopt(
    library: Library, checkpoint: Path, report: Report = lambda progress: None, device: str = "auto"
) -> Adopted:
    """Let the trained head in the folder `checkpoint` answer, with moments and vectors from stored frames.

    The library takes a copy of the head. Raises ModelError for a checkpoint of another backbone and for recipes that
    need the videos encoded again, LibraryError for a library without an index or in use by another run.
    """
    began = time.monotonic()
    former = _live(library)
    _check_backbone(former, checkpoint)
    from vsearch.models.recipes import load_frame_side

    with library.writing(), shared(library.path, report) as told:
        told(Progress("loading the head"))
        own = former.spec["head"]
        head = load_frame_side(checkpoint, former.spec["model"], device, own["window_s"], own["overlap"])
        # calibration is known for scores of the plain head only
        spec = {**former.spec, "head": head.spec(), "calibration": None}
        encoder_id = register_head(library, former.backbone, head.identity, spec)
        renew_moments(library, encoder_id)
        sets = len({video.fingerprint for video in library.videos("indexed", "partial")})
        embed: Callable[..., Any] = head.embed_windows  # stored moments have what it asks of windows
        with side_by_side() as lanes:
            generation = library.publish_update(encoder_id, embed=embed, each=_counted(lanes, sets, told))
        told(Progress("measuring what chance scores", sets, sets))
        with contextlib.suppress(ModelError):  # words can wait for the next run
            score_neutral(library, encoder_id)
    return Adopted(
        head.identity, former.head, generation.count, time.monotonic() - began, former.id != encoder_id
    )


def rollback(library: Library) -> Adopted:
    """Let the head before the present one answer again, with its very index. Raises LibraryError when none is kept."""
    began = time.monotonic()
    with library.writing():
        present = _live(library)
        before = next((g for g in library.generations() if g.encoder_id != present.id), None)
        if before is None:
            raise LibraryError(
                "there is no head to go back to: this library has had only one since it was made"
            )
        generation = library.switch(before.id)
        head = library.encoder(generation.encoder_id).head
        behind = len(library.frame_sets_without_moments(generation.encoder_id))
    return Adopted(head, present.head, generation.count, time.monotonic() - began, behind=behind)


def _live(library: Library) -> EncoderInfo:
    encoder = library.live_encoder()
    if encoder is None:
        raise LibraryError("this library holds no index yet: run `vsearch index FOLDER` first")
    return encoder


def _check_backbone(live: EncoderInfo, checkpoint: Path) -> None:
    from vsearch.models.recipes import read_card

    card = read_card(checkpoint)
    if card.backbone != live.backbone and not card.recipe.in_network and card.recipe.indexable:
        raise ModelError(
            f"{checkpoint} was trained on {card.model} ({card.backbone}), but this library was indexed with "
            f"{live.spec['model']} ({live.backbone}); index into a new library: "
            f"vsearch index FOLDER --head {checkpoint} --library NEW"
        )


def _counted(each: Each, sets: int, report: Report) -> Each:
    """`each` over videos, with progress."""

    def counted(work: Callable[[Any], Any], videos: Iterable[Any]) -> Iterator[Any]:
        for done, found in enumerate(each(work, videos), 1):
            report(Progress("adopting", sets, min(done, sets)))
            yield found

    return counted
