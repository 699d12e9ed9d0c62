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


def test_edl_counts_frames_and_lays_cuts_end_to_end() -> None:
    lines = to_edl({"a.mp4": [JUMP, RUN], "b.mp4": [RUN]}, 25.0).splitlines()
    events = [line for line in lines if re.match(r"\d{3}  ", line)]
    assert events[0] == "001  AX       V     C        00:00:01:00 00:00:02:01 00:00:00:00 00:00:01:01"
    assert events[1].endswith("00:00:01:01 01:01:02:13")
    assert events[2].split()[4:6] == ["00:00:01:00", "00:00:02:01"]
    assert lines[:2] == ["TITLE: vsearch", "FCM: NON-DROP FRAME"]
    assert lines.count("* FROM CLIP NAME: a.mp4") == 2


def test_edl_of_29_97_frames_a_second_counts_at_30() -> None:
    (event,) = [
        x for x in to_edl({"a": [Detection(10_010, 20_020, "x", 1)]}, 30000 / 1001).splitlines() if "AX" in x
    ]
    assert event.split()[4:6] == ["00:00:10:00", "00:00:20:00"]


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
    for text in (to_srt(found), to_vtt(found), to_edl({"v": found}, 30), render({"v": found}, "csv")):
        text.encode()
    assert len(to_edl({"v": found}, 30).splitlines()) == 3 + 3 * len(found)
    assert len(list(csv.reader(io.StringIO(render({"v": found}, "csv"))))) == 1 + len(found)


def test_subtitles_of_several_videos_and_unknown_formats_are_refused() -> None:
    with pytest.raises(VsearchError, match="one video"):
        render({"a": [], "b": []}, "srt")
    with pytest.raises(VsearchError, match="unknown format"):
        render({"a": []}, "avi")
