"""`map` on threads that each use one core, for work that torch does: layers of small networks end before two threads
have shared them out, and a thread that another program holds up delays its own item instead of every layer."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from vsearch.library import Each


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
