"""Detections as files: what evaluators, players and editors read back."""

from __future__ import annotations

import csv
import io
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vsearch.errors import VsearchError
from vsearch.models.training import Segment
from vsearch.models.training.localization_metrics import mean_average_precision
from vsearch.models.training.segments import Prediction
from vsearch.retriever import render, to_activitynet
from vsearch.retriever.actions import Detection
from vsearch.retriever.formats import to_edl, to_srt, to_vtt

JUMP, RUN = Detection(61_500, 3_723_004, "high jump", 0.9), Detection(1_000, 2_040, "running", 0.25)
hostile = st.builds(Detection, st.integers(0, 10**7), st.integers(0, 10**7), st.text(), st.floats(0, 1))


def test_srt_is_numbered_and_in_time_order() -> None:
    assert to_srt([JUMP, RUN]) == (
        "1\n00:00:01,000 --> 00:00:02,040\nrunning\n\n2\n00:01:01,500 --> 01:02:03,004\nhigh jump\n"
    )


def test_vtt_escapes_markup() -> None:
    text = to_vtt([Detection(0, 1500, "cats & <b>dogs</b> --> x", 0.5)])
    assert text == "WEBVTT\n\n00:00:00.000 --> 00:00:01.500\ncats &amp; &lt;b&gt;dogs&lt;/b&gt; -&gt; x\n"


EVENT = re.compile(
    r"(\d{3})  (\w{1,8}) +V     C        (\d\d:\d\d:\d\d:\d\d) (\d\d:\d\d:\d\d:\d\d) (\d\d:\d\d:\d\d:\d\d) (\d\d:\d\d:\d\d:\d\d)"
)


def events(text: str) -> list[tuple[str, ...]]:
    """Number, reel, in and out of the source, in and out on the record side of each event."""
    return [match.groups() for match in map(EVENT.fullmatch, text.splitlines()) if match]


def test_edl_counts_frames_and_lays_cuts_end_to_end() -> None:
    text = to_edl({"/v/a.mp4": [JUMP, RUN], "/v/b.mp4": [RUN]}, {})
    first, second, third = events(text)
    assert first == ("001", "A", "00:00:01:00", "00:00:02:01", "00:00:00:00", "00:00:01:01")
    assert second[4:] == ("00:00:01:01", "01:01:02:13")
    assert third[1:4] == ("B", "00:00:01:00", "00:00:02:01")
    lines = text.splitlines()
    assert lines[:2] == ["TITLE: vsearch", "FCM: NON-DROP FRAME"]
    assert lines.count("* FROM CLIP NAME: a.mp4") == lines.count("* SOURCE FILE: /v/a.mp4") == 2
    assert "M2" not in text


def test_edl_of_29_97_frames_a_second_counts_at_30() -> None:
    (event,) = events(to_edl({"a": [Detection(10_010, 20_020, "x", 1)]}, {"a": 30000 / 1001}))
    assert event[2:4] == ("00:00:10:00", "00:00:20:00")


def test_edl_counts_each_source_at_its_own_rate_and_the_record_side_at_one() -> None:
    each = [Detection(10_480, 12_480, "x", 1)]
    rates = {"slow.mp4": 24.0, "a.mp4": 25.0, "b.mp4": 25.0, "fast.mp4": 240.0}
    text = to_edl(dict.fromkeys(rates, each), rates)
    found = events(text)
    assert [event[2] for event in found] == ["00:00:10:12", "00:00:10:12", "00:00:10:12", "00:00:10:29"]
    assert [event[3] for event in found] == ["00:00:12:12", "00:00:12:12", "00:00:12:12", "00:00:12:29"]
    assert [event[4] for event in found] == [f"00:00:0{second}:00" for second in (0, 2, 4, 6)]
    speeds = [line.split() for line in text.splitlines() if line.startswith("M2")]
    assert speeds == [["M2", "SLOW", "024.0", "00:00:10:12"], ["M2", "FAST", "060.0", "00:00:10:29"]]


def test_edl_names_a_reel_for_each_source() -> None:
    files = [
        "/a/holiday in rome.mp4",
        "/b/holiday in rome.mp4",
        "/b/Holiday in Paris.mp4",
        "/ax.mov",
        "/ж.mp4",
    ]
    reels = [event[1] for event in events(to_edl({file: [RUN] for file in files}, {}))]
    assert reels == ["HOLIDAYI", "HOLIDAY1", "HOLIDAY2", "AX1", "REEL"]


def test_an_edl_that_cannot_be_numbered_or_counted_is_refused() -> None:
    assert events(to_edl({"a": [RUN] * 999}, {}))[-1][0] == "999"
    with pytest.raises(VsearchError, match="999 events and no more, and 1000 intervals"):
        to_edl({"a": [RUN] * 999, "b": [RUN]}, {})
    with pytest.raises(VsearchError, match="that of b is not known"):
        to_edl({"a": [RUN], "b": [RUN]}, {"a": 25.0, "b": 0.0})


def test_activitynet_predictions_are_evaluated_as_they_stand() -> None:
    written = to_activitynet({"v": [JUMP, RUN]})
    assert set(written) == {"version", "results", "external_data"}
    read = [
        Prediction(video, *entry["segment"], entry["label"], entry["score"])
        for video, entries in written["results"].items()
        for entry in entries
    ]
    truth = [Segment("v", 61.5, 3723.004, "high jump"), Segment("v", 1, 2.04, "running")]
    assert mean_average_precision(truth, read).average == 1


def test_csv_reads_back_and_runs_no_formula() -> None:
    evil = Detection(0, 1, '=cmd|"x",y', 0.5)
    rows = list(csv.reader(io.StringIO(render({"@a\n.mp4": [evil, RUN]}, "csv"))))
    assert rows[1] == ["'@a .mp4", "0.000", "0.001", '\'=cmd|"x",y', "0.5000"]
    assert rows[2][1:] == ["1.000", "2.040", "running", "0.2500"]


@given(st.lists(hostile, max_size=4))
def test_no_label_breaks_a_file(found: list[Detection]) -> None:
    assert to_srt(found).count("-->") == to_vtt(found).count("-->") == len(found)
    for text in (to_srt(found), to_vtt(found), to_edl({"v": found}, {"v": 30}), render({"v": found}, "csv")):
        text.encode()
    assert len(to_edl({"v": found}, {"v": 30}).splitlines()) == 3 + 4 * len(found)
    assert len(list(csv.reader(io.StringIO(render({"v": found}, "csv"))))) == 1 + len(found)


def test_subtitles_of_several_videos_and_unknown_formats_are_refused() -> None:
    with pytest.raises(VsearchError, match="one video"):
        render({"a": [], "b": []}, "srt")
    with pytest.raises(VsearchError, match="unknown format"):
        render({"a": []}, "avi")
