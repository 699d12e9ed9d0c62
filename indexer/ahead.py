"""Reading on in a thread of its own while the caller deals with what was read.

Recording a video waits for the disk several times; meanwhile frames go on to the encoder. The library stays with the
thread that has locked it, which is also the one that an interrupt (Ctrl-C) reaches.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

Given = TypeVar("Given")
Made = TypeVar("Made")

_LOOK_S = 0.2  # how often a waiting thread looks around


@dataclass(frozen=True)
class _End:
    fault: BaseException | None


class _Closed(Exception):
    """The caller wants no more."""


def ahead(
    make: Callable[[Iterable[Given]], Iterable[Made]],
    given: Iterable[Given],
    room: int,
    idle: Callable[[], None],
    stop: Callable[[], None] = lambda: None,
) -> Generator[Made, None, None]:
    """What `make(given)` yields, in its order, then what it raises; at most `room` items wait for the caller.

    `idle` is called in the caller's thread now and then while nothing comes. Closing the generator before its end calls
    `stop`, which should end `given`, stops the other thread at the next of that, and waits for it.
    """
    made: queue.Queue[Made | _End] = queue.Queue(room)
    closed = threading.Event()

    def until_closed() -> Iterator[Given]:
        for item in given:
            if closed.is_set():
                raise _Closed
            yield item

    def put(item: Made | _End) -> None:
        while not closed.is_set():
            try:
                return made.put(item, timeout=_LOOK_S)
            except queue.Full:
                continue
        raise _Closed

    def run() -> None:
        try:
            for item in make(until_closed()):
                put(item)
            put(_End(None))
        except _Closed:
            return
        except BaseException as fault:
            if not closed.is_set():
                made.put(_End(fault))  # waits for room, which closing makes

    thread = threading.Thread(target=run, name="vsearch-ahead", daemon=True)
    thread.start()
    try:
        while True:
            try:
                item = made.get(timeout=_LOOK_S)
            except queue.Empty:
                idle()
                continue
            if not isinstance(item, _End):
                yield item
            elif item.fault:
                raise item.fault
            else:
                return
    except BaseException:  # of the caller, too: an interrupt, or no more wanted
        closed.set()
        stop()
        raise
    finally:
        closed.set()
        while thread.is_alive():
            while not made.empty():
                made.get()
            thread.join(_LOOK_S)
