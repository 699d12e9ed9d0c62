"""Encoders that are kept: how many, on which device, and whose."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from vsearch.records import EncoderInfo
from vsearch.retriever import encoders as kept
from vsearch.retriever.encoders import Encoders
from vsearch.retriever.searching import own_or_given


def live(name: str) -> EncoderInfo:
    return EncoderInfo(1, name, "backbone", "head", {"name": name})


class Made:
    """Stands for an encoder."""

    def __init__(self, name: str, device: str) -> None:
        self.identity, self.backbone = name, SimpleNamespace(device=device)

    def embed_texts(self, texts: Sequence[str]) -> np.ndarray:
        return np.zeros((len(texts), 4), np.float32)


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was loaded, in order, and how; a machine whose GPU is the usual device."""
    order: list[str] = []

    def quickly(spec: dict[str, Any]) -> Made:
        order.append(f"quick {spec['name']}")
        return Made(spec["name"], "cpu")

    def slowly(wanted: EncoderInfo, device: str) -> Made:
        order.append(f"whole {wanted.identity}")
        return Made(wanted.identity, "cuda" if device == "auto" else device)

    monkeypatch.setattr("vsearch.models.load_quick_encoder", quickly)
    monkeypatch.setattr(
        "vsearch.models.resolve_devices", lambda device: ["cuda" if device == "auto" else device]
    )
    monkeypatch.setattr(kept, "matching_encoder", slowly)
    return order


def test_pictures_go_through_the_device_that_was_asked_for_and_sentences_through_what_is_quick(
    loaded: list[str],
) -> None:
    encoders = Encoders()
    encoders.embed_texts(live("a"), ["a dog"])
    assert loaded == ["quick a"]
    assert encoders.load(live("a")).backbone.device == "cuda"
    assert encoders.load(live("a")) is encoders.at_hand(live("a"))  # for sentences, too, from now on
    assert loaded == ["quick a", "whole a"]
    assert Encoders("cpu").load(live("a")).backbone.device == "cpu"
    assert loaded == ["quick a", "whole a", "quick a"]


@pytest.mark.parametrize("most", [1, 2])
def test_room_is_made_before_another_is_loaded(
    most: int, loaded: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    encoders, held = Encoders("cpu", most=most), []

    def load(spec: dict[str, Any]) -> Made:
        held.append(len(vars(encoders)["_held"]))
        return Made(spec["name"], "cpu")

    monkeypatch.setattr("vsearch.models.load_quick_encoder", load)
    for name in "abcab":
        encoders.load(live(name))
    assert held == [0, *[most - 1] * 4]


def test_letting_go_waits_for_nobody_and_forgets_what_was_slow(loaded: list[str]) -> None:
    encoders = Encoders("cpu")
    encoders.load(live("a"))
    vars(encoders)["_slow"].add("b")
    works, done = threading.Event(), threading.Event()

    def work() -> None:
        with encoders.lock:
            works.set()
            assert done.wait(60)

    thread = threading.Thread(target=work)
    thread.start()
    assert works.wait(60)
    threading.Timer(30, done.set).start()
    encoders.clear()
    assert not done.is_set()
    done.set()
    thread.join()
    assert not encoders
    assert encoders.load(live("b"))
    assert loaded == ["quick a", "quick b"]


def test_a_library_of_another_head_is_asked_through_the_same_encoders(loaded: list[str]) -> None:
    encoders = Encoders("cpu", patient=False)
    given = encoders.text(live("a"))
    assert own_or_given(live("a"), given) is given
    other = own_or_given(live("b"), given)
    assert other.identity == "b"
    other.embed_texts(["a dog"])
    assert encoders.at_hand(live("b")) is not None
    assert loaded == ["quick b"]
