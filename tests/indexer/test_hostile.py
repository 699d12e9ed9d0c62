"""Thirty broken and hostile files among ten good ones, through the whole product (issue: one bad file never stops,
hangs or crashes a run)."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import media

GOOD = [
    ("good-0.mp4", "libx264"),
    ("good-1.mkv", "libx265"),
    ("good-2.webm", "libvpx-vp9"),
    ("good-3.avi", "mpeg4"),
    ("good-4.ts", "libx264"),
    ("good-5.mov", "libx264"),
    ("good-6.gif", "gif"),
    ("good-7.mp4", "libsvtav1"),
    ("-good 8 'quoted' <b>.mp4", "libx264"),
    ("good-9\nline ☃.mkv", "libx264"),
]


def write_good(folder: Path) -> set[str]:
    for number, (name, codec) in enumerate(GOOD):
        pixels = "rgb8" if codec == "gif" else "yuv420p"
        media.write_video(folder / name, codec, frames=20 + number, fps=10, pixels=pixels)
    return {name for name, _ in GOOD}


def write_bad(folder: Path, donor: Path) -> dict[str, str]:
    """Thirty files; name -> a word that its reason must contain."""
    chance = random.Random(0)
    content = donor.read_bytes()
    noise = bytes(chance.randrange(256) for _ in range(20_000))
    text = {
        "empty.mp4": (b"", "empty"),
        "empty.mkv": (b"", "empty"),
        "one-byte.avi": (b"\0", "zeros"),
        "zeros.mp4": (bytes(50_000), "zeros"),
        "noise.mp4": (noise, "no known container"),
        "noise.webm": (noise[::-1], "no known container"),
        "text.mov": (b"this is not a film\n" * 50, "text"),
        "page.mp4": (b"<!DOCTYPE html><html><body>404</body></html>", "web page"),
        "script.mkv": (b"#!/bin/sh\nrm -rf /\n", "text"),
        "header-only.mp4": (content[:40], ""),
        "no-moov.mp4": (content[: len(content) * 2 // 3], "moov"),
        "moov-noise.mp4": (content[:200] + noise, ""),
        "ebml-noise.mkv": (b"\x1a\x45\xdf\xa3" + noise, ""),
        "ebml-short.webm": (b"\x1a\x45\xdf\xa3\x01", ""),
        "riff-noise.avi": (b"RIFF\xff\xff\xff\x7fAVI LIST" + noise, ""),
        "flv-noise.flv": (b"FLV\x01\x05\0\0\0\x09" + noise, ""),
        "gif-noise.gif": (b"GIF89a" + noise, ""),
        "asf-noise.wmv": (bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c") + noise, ""),
        "ts-noise.ts": (b"".join(b"\x47" + noise[i : i + 187] for i in range(0, 18_700, 187)), ""),
        "huge-atom.mp4": (b"\xff\xff\xff\xffftypisom" + noise, ""),
        "loop-atom.mp4": (b"\0\0\0\x08moov" * 2000, ""),
        "concat.mp4": (b"ffconcat version 1.0\nfile good-0.mp4\n", "playlist"),
        "sdp.mp4": (
            b"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nm=video 9 RTP/AVP 96\n",
            "refused",
        ),
        "hls-local.mp4": (b"#EXTM3U\n#EXTINF:1,\n/etc/passwd\n#EXT-X-ENDLIST\n", "playlist"),
        "hls-net.mp4": (b"#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:9/x.ts\n#EXT-X-ENDLIST\n", "playlist"),
        "hls.m3u8.mp4": (b"\n\n#EXTM3U\n#EXTINF:1,\ngood-0.mp4\n", ""),
        "dash.mp4": (b'<?xml version="1.0"?>\n<MPD xmlns="urn:mpeg:dash:schema:mpd:2011"></MPD>', "playlist"),
    }
    for name, (data, _) in text.items():
        (folder / name).write_bytes(data)
    words = {name: word for name, (_, word) in text.items()}
    media.audio_only(folder / "sound.mp4")
    media.without_frames(folder / "frameless.mp4")
    words |= {"sound.mp4": "audio", "frameless.mp4": ""}
    if os.getuid() == 0:  # root reads everything
        (folder / "another-empty.mp4").write_bytes(b"")
        words["another-empty.mp4"] = "empty"
    else:
        (folder / "locked.mp4").write_bytes(content)
        (folder / "locked.mp4").chmod(0)
        words["locked.mp4"] = "ermission"
    return words


@pytest.mark.slow
def test_ten_good_among_thirty_hostile_files(tmp_path: Path, tiny_model: Path, vsearch: Callable) -> None:
    folder = tmp_path / "videos"
    folder.mkdir()
    good = write_good(folder)
    words = write_bad(folder, folder / "good-0.mp4")
    assert (len(good), len(words)) == (10, 30)
    for file in folder.iterdir():
        os.utime(file, (1, 1))
    done = vsearch("index", folder, "--model", tiny_model, "--json")
    assert done.returncode == 3, done.stderr
    summary = json.loads(done.stdout)
    reasons = {Path(path).name: reason for path, reason in summary["failures"]}
    assert set(reasons) == set(words)
    assert {n: r for n, r in reasons.items() if words[n] not in r} == {}
    assert all(len(reason) > 10 for reason in reasons.values())
    assert "Traceback" not in done.stderr
    assert summary["indexed"] == 10
    hits = json.loads(vsearch("query", "anything", "-n", "50", "--json").stdout)["hits"]
    assert {Path(h["path"]).name for h in hits} == good
    assert vsearch("verify").returncode == 0
