"""Frames for training and evaluation: from a folder of videos, a library, or zip files of pictures."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vsearch.errors import VsearchError, listed
from vsearch.indexer.fingerprint import Content, FileChanged, Watched
from vsearch.models.training.datasets import Clip

if TYPE_CHECKING:
    from vsearch.library import Library
    from vsearch.models import Backbone, Preprocess
    from vsearch.models.recipes import Recipe
    from vsearch.models.training import FrameSource

Report = Callable[[str], None]
KEEP_FRAMES = 64  # of a clip, evenly spread: more than any recipe takes
FPS = 2.0
_ENDINGS = ("", ".mp4", ".webm", ".mkv", ".avi", ".mov", ".m4v")


def open_frames(
    paths: Sequence[Path],
    clips: Sequence[Clip],
    backbone: Backbone,
    recipe: Recipe,
    cache: Path,
    report: Report,
) -> tuple[list[Clip], dict[str, Any] | FrameSource]:
    """The clips that have frames, and where those come from: stored vectors when the recipe leaves the image
    tower alone and needs no patches, pictures otherwise.

    paths: zip files, one library, or folders of videos. Raises VsearchError when nothing fits.
    """
    from vsearch.library import Library
    from vsearch.models.training import ZipFrames, cached_vectors

    vectors_do = not recipe.in_network and recipe.similarity.kind != "video-prompts"
    if len(paths) == 1 and Library.exists(paths[0]):
        if not vectors_do:
            raise VsearchError(
                f"recipe {recipe.name} needs pictures, a library keeps frame vectors; give the videos"
            )
        with Library.open(paths[0]) as library:
            found: dict[str, Any] | FrameSource = _library_vectors(library, clips, backbone)
    else:
        source: FrameSource
        if all(path.suffix == ".zip" for path in paths):
            source = ZipFrames(paths, backbone.preprocess)
        else:
            source = VideoFolder(paths, backbone.preprocess, cache, clips, report)
        found = cached_vectors(source, clips, backbone, cache, report) if vectors_do else source
    have = [c for c in clips if (c.key in found if isinstance(found, dict) else found.frames(c) is not None)]
    if not have:
        raise VsearchError(f"none of the {len(clips)} annotated videos is in {', '.join(map(str, paths))}")
    if len(have) < len(clips):
        held = {c.key for c in have}
        lacking = list(dict.fromkeys(c.video for c in clips if c.key not in held))
        report(f"{len(lacking)} annotated videos have no frames and are left out: {listed(lacking)}")
    return have, found


class VideoFolder:
    """Videos decoded once through the indexer's supervised processes; up to KEEP_FRAMES pictures a clip are kept
    as `.npy` in the cache."""

    def __init__(
        self,
        folders: Sequence[Path],
        preprocess: Preprocess,
        cache: Path,
        clips: Sequence[Clip],
        report: Report,
    ) -> None:
        self._preprocess = preprocess
        self._files = files_below(folders)
        self.identity = f"videos-{_digest(f'{preprocess} {FPS} {KEEP_FRAMES}')}"
        self._folder = cache / self.identity
        named = _digest(str([str(folder.resolve()) for folder in folders]))
        self._contents = self._look(clips, cache / f"contents-{named}.json")
        self._decode([c for c in clips if not self._path(c).is_file()], report)

    def _look(self, clips: Sequence[Clip], kept: Path) -> dict[str, str]:
        """Fingerprints of the videos by their names in the annotations. A file is read again when its size or time is
        another; of one that is gone, the last is known."""
        try:
            known = {name: Content(*entry) for name, entry in json.loads(kept.read_text()).items()}
        except (OSError, ValueError, TypeError, AttributeError):
            known = {}
        for name, file in {clip.video: self._file(clip) for clip in clips}.items():
            if file is not None:
                try:
                    known[name] = Watched(file).content(known.get(name))
                except (FileChanged, OSError):  # decoding says why
                    known.pop(name, None)
        kept.parent.mkdir(parents=True, exist_ok=True)
        temporary = kept.with_suffix(f".{os.getpid()}.part")  # several processes may do the same work
        temporary.write_text(json.dumps(known))
        temporary.replace(kept)
        return {name: content.fingerprint for name, content in known.items()}

    def content(self, clip: Clip) -> str:
        return self._contents.get(clip.video, "")

    def frames(self, clip: Clip) -> Any:
        path = self._path(clip)
        return np.load(path, mmap_mode="c") if self.content(clip) and path.is_file() else None

    def _path(self, clip: Clip) -> Path:
        return self._folder / f"{_digest(f'{self.content(clip)} {clip.span}')}.npy"

    def _file(self, clip: Clip) -> Path | None:
        return next((self._files[clip.video + e] for e in _ENDINGS if clip.video + e in self._files), None)

    def _decode(self, clips: Sequence[Clip], report: Report) -> None:
        from vsearch.indexer.decode import (
            DecodeJob,
            DecodeOptions,
            DecodePool,
            FrameChunk,
            FrameShape,
            JobFailed,
            default_workers,
        )

        wanted: dict[Path, list[Clip]] = {}
        for clip in clips:
            if (file := self._file(clip)) is not None:
                wanted.setdefault(file, []).append(clip)
        if not wanted:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        pre, files = self._preprocess, list(wanted)
        options = DecodeOptions(fps=FPS, shape=FrameShape(pre.size, pre.resize_mode, pre.interpolation))
        chunks: dict[int, list[Any]] = {}
        done = 0
        with DecodePool(options, workers=default_workers()) as pool:
            for event in pool.run(DecodeJob(i, path) for i, path in enumerate(files)):
                if isinstance(event, FrameChunk):
                    chunks.setdefault(event.job_id, []).append(event)
                    continue
                if isinstance(event, JobFailed):
                    report(f"{files[event.job_id]}: {event.reason}")
                parts = chunks.pop(event.job_id, [])
                if parts and not isinstance(event, JobFailed):
                    self._keep(parts, wanted[files[event.job_id]])
                done += 1
                if done % 50 == 0:
                    report(f"decoded {done} of {len(files)} videos")

    def _keep(self, parts: Sequence[Any], clips: Sequence[Clip]) -> None:
        frames = np.concatenate([p.frames for p in parts])
        times_s = np.concatenate([p.times_ms for p in parts]) / 1000
        for clip in clips:
            inside = np.flatnonzero(_inside(times_s, clip))
            if len(inside) > KEEP_FRAMES:
                inside = inside[np.linspace(0, len(inside) - 1, KEEP_FRAMES).round().astype(int)]
            if len(inside):
                temporary = self._path(clip).with_suffix(".part")
                with temporary.open("wb") as file:
                    np.save(file, frames[inside])
                temporary.replace(self._path(clip))


def _library_vectors(library: Library, clips: Sequence[Clip], backbone: Backbone) -> dict[str, Any]:
    from vsearch.records import INDEXED, PARTIAL

    held = library.live_encoder()
    if held is None or held.backbone != backbone.identity:
        name = held.spec["model"] if held else "no model"
        raise VsearchError(f"this library was indexed with {name}; use --model {name}")
    by_name: dict[str, Any] = {}
    for video in library.videos(INDEXED, PARTIAL):
        by_name |= dict.fromkeys((Path(video.path).name, Path(video.path).stem), video)
    found = {}
    for clip in clips:
        named = by_name.get(Path(clip.video).name)
        frame_set = library.frame_set_of(named, backbone.identity) if named is not None else None
        if frame_set is not None and not frame_set.frames.coarse:
            stored = library.frames(frame_set.id)
            inside = _inside(np.asarray(stored.times_ms) / 1000, clip)
            if inside.any():
                found[clip.key] = np.asarray(stored.vectors)[inside]
    return found


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()


def _inside(times_s: Any, clip: Clip) -> Any:
    if clip.start_s is None or clip.end_s is None:
        return np.ones(len(times_s), bool)
    return (times_s >= clip.start_s) & (times_s < clip.end_s)


def files_below(folders: Sequence[Path]) -> dict[str, Path]:
    """Files by name and by path below the folder; links out of it are not followed."""
    found: dict[str, Path] = {}
    for folder in folders:
        if not folder.is_dir():
            raise VsearchError(f"{folder}: expected a folder of videos, a library, or zip files of pictures")
        for root, _, names in os.walk(folder):
            for name in sorted(names):
                path = Path(root, name)
                found.setdefault(path.relative_to(folder).as_posix(), path)
                found.setdefault(name, path)
    return found
