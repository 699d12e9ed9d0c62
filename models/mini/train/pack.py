"""Pictures or videos with captions, packed for the training of the built-in model (its card says where they go).

    python -m vsearch.models.mini.train.pack CAPTIONS FOLDER DATA/more/NAME

CAPTIONS is a .csv, .tsv or .jsonl with `video` and `caption` a row (`video`: a file's name below FOLDER, of a video or a
picture; `start` and `end` in seconds for a part). Writes NAME.zip, up to six pictures `GROUP/PICTURE.webp` a file, their
short side 256 px (frames of videos cut to a square), and NAME.csv with `group,caption`.
"""

from __future__ import annotations

import argparse
import csv
import io
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from vsearch.errors import VsearchError
from vsearch.indexer import is_picture
from vsearch.indexer.still import FORMATS
from vsearch.indexer.training_frames import VideoFolder, files_below
from vsearch.models import Preprocess
from vsearch.models.training.datasets import read_dataset

SIZE, PICTURES = 256, 6


def pack(captions: Path, folder: Path, out: Path, report: Callable[[str], None] = print) -> int:
    """Gives the number of packed files. Raises VsearchError for captions or a folder that cannot be used; files that
    cannot be decoded are reported and left out."""
    clips = read_dataset("plain", captions).clips
    files = files_below([folder])
    still = {clip.key for clip in clips if clip.video in files and is_picture(files[clip.video])}
    shape = Preprocess(SIZE, (0, 0, 0), (1, 1, 1))
    out.parent.mkdir(parents=True, exist_ok=True)
    packed = 0
    with tempfile.TemporaryDirectory() as cache, zipfile.ZipFile(out.with_suffix(".zip"), "w") as archive:
        videos = VideoFolder([folder], shape, Path(cache), [c for c in clips if c.key not in still], report)
        with open(out.with_suffix(".csv"), "w", encoding="utf8", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(("group", "caption"))
            for clip in clips:
                frames = _still(files[clip.video], report) if clip.key in still else videos.frames(clip)
                if frames is None:
                    continue
                group = f"{packed:07d}"
                for k, frame in enumerate(_spread(frames)):
                    archive.writestr(f"{group}/{k}.webp", _webp(frame))
                rows.writerows((group, caption) for caption in clip.captions)
                packed += 1
    if not packed:
        raise VsearchError(
            f"none of the {len(clips)} files that {captions} names could be read below {folder}"
        )
    if packed < len(clips):
        report(f"{len(clips) - packed} of {len(clips)} files are not below {folder} or could not be read")
    return packed


def _still(path: Path, report: Callable[[str], None]) -> list[Any] | None:
    """The picture, upright, its short side reduced to SIZE. Read in this process: training data is the user's own."""
    from PIL import Image, ImageOps

    try:
        with Image.open(path, formats=FORMATS) as opened:
            picture = ImageOps.exif_transpose(opened).convert("RGB")
    except (
        OSError,
        ValueError,
        SyntaxError,
        Image.DecompressionBombError,
    ) as fault:  # what Pillow says of bad files
        report(f"{path}: {str(fault)[:200]}")
        return None
    scale = SIZE / min(picture.size)
    if scale < 1:
        width, height = (max(SIZE, round(side * scale)) for side in picture.size)
        picture = picture.resize((width, height), Image.Resampling.BICUBIC)
    return [np.asarray(picture)]


def _spread(frames: Any) -> list[Any]:
    chosen = np.unique(np.linspace(0, len(frames) - 1, min(PICTURES, len(frames))).round().astype(int))
    return [frames[i] for i in chosen]


def _webp(frame: Any) -> bytes:
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(np.asarray(frame)).save(file, "WEBP", quality=90)
    return file.getvalue()


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("captions", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    args = parser.parse_args()
    try:
        print(f"{pack(args.captions, args.folder, args.out)} files packed into {args.out}.zip")
    except VsearchError as fault:
        print(f"error: {fault}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
