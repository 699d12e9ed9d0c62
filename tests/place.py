"""Every verb at work, in one small place: videos, a tiny model, annotations, and a library of the verbs' own."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

from tests import media

NEW = "a sentence never asked"


@dataclass(frozen=True)
class Place:
    """Where the verbs find and leave their files. `videos` has four whole ones and a broken one."""

    folder: Path
    model: Path

    @property
    def videos(self) -> Path:
        return self.folder / "videos"

    @property
    def library(self) -> Path:
        return self.folder / "library"

    def recipes(self) -> dict[str, list[tuple[int, list[str]]]]:
        """verb: what to run, each with its exit code; in an order in which everything is there. All but the page."""
        labels = ["--dataset", "plain", "--annotations", "labels.csv", "--videos", "videos",
                  "--model", self.model, "--cache", "cache"]  # fmt: skip
        written: dict[str, list[tuple[int, list[object]]]] = {
            "index": [(3, ["videos", "--model", self.model, "--json"])],
            "query": [(0, [NEW, "--no-helper", "--device", "cpu"]), (0, [NEW, "--no-helper", "--json"])],
            "similar": [(0, ["v0.mp4@1"])],
            "clip": [(0, ["v0.mp4", "--start", "1", "--end", "2", "-f", "-o", "cut.mp4"])],
            "localize": [(0, ["v0.mp4", "--actions", "one, two", "--threshold", "0"])],
            "classify": [(0, ["outside.mp4", "--actions", "one, two"])],
            "status": [(0, [])],
            "ls": [(0, [])],
            "info": [(0, ["v0.mp4"])],
            "verify": [(0, [])],
            "doctor": [(0, [])],
            "bench": [(0, ["--rounds", "1"])],
            "train": [(0, [*labels, "--freeze-image", "--epochs", "1", "--batch", "2", "--out", "run"])],
            "eval": [(0, labels)],
            "adopt": [(0, ["run", "--device", "cpu", "--json"]), (0, ["--rollback", "--json"])],
            "train-proposals": [(0, ["truth.json", "--save", "generator.safetensors", "--steps", "2"])],
            "models": [(0, ["list", "mini"])],
            "forget": [(0, ["v3.mp4", "--yes"])],
        }
        return {verb: [(code, [verb, *map(self._named, rest)]) for code, rest in runs]
                for verb, runs in written.items()}  # fmt: skip

    def _named(self, argument: object) -> str:
        """Names of files that we made as whole paths: verbs run anywhere."""
        text = str(argument)
        made = text in ("videos", "outside.mp4", "labels.csv", "truth.json", "run", "cache", "cut.mp4",
                        "generator.safetensors")  # fmt: skip
        return str(self.folder / text) if made else text


def make_place(folder: Path, model: Path) -> Place:
    place = Place(folder, model)
    place.videos.mkdir(parents=True)
    marks = [{"segment": [1, 3], "label": "one"}, {"segment": [4, 6], "label": "two"}]
    database = {}
    for i in range(4):
        media.write_video(place.videos / f"v{i}.mp4", frames=80 + i, fps=10)
        database[f"v{i}"] = {"subset": "training", "duration": 8.0, "annotations": marks}
    media.write_video(folder / "outside.mp4", frames=17, fps=10)
    (place.videos / "broken.mp4").write_bytes(b"no film")
    for file in (*place.videos.iterdir(), folder / "outside.mp4"):
        os.utime(file, (1, 1))
    (folder / "truth.json").write_text(json.dumps({"database": database}))
    rows = [f"v{i}.mp4,{'one' if i % 2 else 'two'}" for i in range(4)]
    (folder / "labels.csv").write_text("\n".join(["video,label", *rows]) + "\n")
    return place
