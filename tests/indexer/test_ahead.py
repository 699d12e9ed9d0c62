"""Reading on in another thread: the same items, the same faults, bounded, and stopped when the caller stops."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator

import pytest

from vsearch.indexer.encoding import ahead


def doubled(given: Iterable[int]) -> Iterator[int]:
    for item in given:
        if item < 0:
            raise ValueError("below zero")
        yield 2 * item


def threads() -> list[threading.Thread]:
    return [t for t in threading.enumerate() if t.name == "vsearch-ahead"]


def test_everything_comes_in_order() -> None:
    assert list(ahead(doubled, range(50), 3, lambda: None)) == list(range(0, 100, 2))
    assert threads() == []


def test_what_came_before_a_fault_comes_first() -> None:
    ready = ahead(doubled, [1, 2, 3, 4, 5, -1, 6], 2, lambda: None)
    assert [next(ready) for _ in range(5)] == [2, 4, 6, 8, 10]
    with pytest.raises(ValueError, match="below zero"):
        next(ready)


def test_it_reads_on_while_the_caller_works_but_not_too_far() -> None:
    taken: list[int] = []
    enough = threading.Event()

    def given() -> Iterator[int]:
        for i in range(100):
            taken.append(i)
            if i == 5:
                enough.set()
            yield i

    ready = ahead(doubled, given(), 4, lambda: None)
    assert next(ready) == 0
    assert enough.wait(10)  # one is with the caller, four wait, one finds no room
    ready.close()
    assert len(taken) <= 7
    assert threads() == []


def test_a_caller_who_waits_is_woken() -> None:
    woken = threading.Event()

    def given() -> Iterator[int]:
        yield 1
        assert woken.wait(10)
        yield 2

    assert list(ahead(doubled, given(), 4, woken.set)) == [2, 4]


def test_an_interrupt_of_the_caller_stops_the_other_thread() -> None:
    def endless() -> Iterator[int]:
        while True:
            yield 1

    def idle() -> None:
        raise KeyboardInterrupt

    def silent(given: Iterable[int]) -> Iterator[int]:
        for _ in given:
            pass
        yield 0

    with pytest.raises(KeyboardInterrupt):
        list(ahead(silent, endless(), 4, idle))
    assert threads() == []
