"""Where videos come from in training and evaluation, which frames are taken, and how samples become batches."""

from __future__ import annotations

import hashlib
import io
import random
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import Sampler

from vsearch.errors import VsearchError
from vsearch.models.recipes import Batch
from vsearch.models.training.datasets import Clip

if TYPE_CHECKING:
    from vsearch.models.backbone import Backbone
from vsearch.models.preprocess import Preprocess

Frames = npt.NDArray[Any]  # (N, S, S, 3) uint8 RGB, or (N, D) float vectors


class FrameSource(Protocol):
    """Knows the frames of clips. `identity` names how the frames are made, for the cache."""

    @property
    def identity(self) -> str: ...

    def content(self, clip: Clip) -> str:
        """Names what the clip's frames are of, whatever its file is called; empty where the source lacks the clip."""
        ...

    def frames(self, clip: Clip) -> Frames | None:
        """(N, S, S, 3) uint8 in order of time, or None where the source lacks the clip."""
        ...


class ZipFrames:
    """Pictures in zip files, one folder a video, in order of the number their name ends with."""

    def __init__(self, archives: Sequence[Path], preprocess: Preprocess) -> None:
        self.preprocess = preprocess
        self._members: dict[str, list[tuple[int, Path, str]]] = {}
        self._open: dict[Path, zipfile.ZipFile] = {}
        digest = hashlib.blake2b(digest_size=8)
        for archive in sorted(archives):
            try:
                self._open[archive] = zipfile.ZipFile(archive)
            except (OSError, zipfile.BadZipFile) as fault:
                raise VsearchError(f"{archive}: cannot be read as a zip file ({fault})") from fault
            for info in self._open[archive].infolist():
                path = Path(info.filename)
                if path.suffix.lower() in (".jpg", ".jpeg", ".png", ".webp"):
                    number = "".join(c if c.isdigit() else " " for c in path.stem).split()
                    self._members.setdefault(path.parent.name, []).append(
                        (int(number[-1]) if number else 0, archive, info.filename)
                    )
                    digest.update(f"{info.filename} {info.CRC}".encode())
        if not self._members:
            raise VsearchError(
                "no pictures in the zip files; expected VIDEO/NUMBER.jpg, .png or .webp inside"
            )
        self.identity = f"zip-{digest.hexdigest()}"

    def content(self, clip: Clip) -> str:
        return clip.video if clip.video in self._members else ""  # the identity is of the contents

    def frames(self, clip: Clip) -> Frames | None:
        from PIL import Image

        members = self._members.get(clip.video)
        if not members:
            return None
        pictures = []
        for _, archive, name in sorted(members):
            with Image.open(io.BytesIO(self._open[archive].read(name))) as picture:
                pictures.append(_fit(picture.convert("RGB"), self.preprocess))
        return np.stack(pictures)


def _fit(picture: Any, preprocess: Preprocess) -> npt.NDArray[np.uint8]:
    """Short side to the model's size and the centre, or squashed, as the backbone's preprocessing says."""
    from PIL import Image

    size, (width, height) = preprocess.size, picture.size
    how = Image.Resampling.BILINEAR if preprocess.interpolation == "bilinear" else Image.Resampling.BICUBIC
    if preprocess.resize_mode == "squash":
        return np.asarray(picture.resize((size, size), how))
    side = min(width, height) if preprocess.resize_mode == "shortest" else max(width, height)
    picture = picture.resize((max(1, round(width * size / side)), max(1, round(height * size / side))), how)
    left, top = (picture.width - size) // 2, (picture.height - size) // 2
    return np.asarray(picture.crop((left, top, left + size, top + size)))


def cached_vectors(
    source: FrameSource, clips: Sequence[Clip], backbone: Backbone, folder: Path | None, report: Any = None
) -> dict[str, npt.NDArray[np.float16]]:
    """Frame vectors (N, D) of every clip that the source has, by `Clip.key`; each is encoded once and kept.

    folder: where the cache file lies, None keeps nothing. Known vectors of the same source and backbone are used.
    """
    from safetensors.numpy import load_file, save

    from vsearch.models.recipes import checkpoint

    label = hashlib.blake2b(f"{source.identity} {backbone.identity}".encode(), digest_size=8).hexdigest()
    path = folder / f"frames-{label}.safetensors" if folder else None
    known: dict[str, Any] = dict(load_file(path)) if path and path.is_file() else {}
    before = len(known)
    kept = {clip.key: f"{source.content(clip)} {clip.span}" for clip in clips if source.content(clip)}
    for i, clip in enumerate(clips):
        if clip.key not in kept or kept[clip.key] in known:
            continue
        frames = source.frames(clip)
        if frames is not None and len(frames):
            known[kept[clip.key]] = _encode(backbone, frames).astype(np.float16)
        if report and i % 50 == 49:
            report(f"encoded {i + 1} of {len(clips)} videos")
    if path and len(known) > before:
        checkpoint.write_whole(path, save(known))
    return {key: known[name] for key, name in kept.items() if name in known}


def _encode(backbone: Backbone, frames: Frames, size: int = 64) -> npt.NDArray[np.float32]:
    return np.concatenate([backbone.encode_frames(frames[i : i + size]) for i in range(0, len(frames), size)])


def pick(count: int, wanted: int, rng: random.Random | None) -> list[int]:
    """Indices of `wanted` of `count` frames: one from each of `wanted` equal segments, at random or its middle (TSN).

    Fewer frames than wanted: all of them.
    """
    if count <= wanted:
        return list(range(count))
    edges = [i * count / wanted for i in range(wanted + 1)]
    return [
        min(count - 1, int(low + (rng.random() if rng else 0.5) * (high - low)))
        for low, high in pairwise(edges)
    ]


@dataclass(frozen=True)
class Sample:
    """A clip's chosen frames, and one sentence or its class."""

    frames: Frames
    text: str
    key: str
    label: int | None


class Samples:
    """A map-style data set: a clip an item, with a caption and frames drawn anew each epoch from the seed.

    `frames` maps `Clip.key` to stored vectors, or is a source to read pictures from. `classes` turns labels into
    numbers; without it captions are used.
    """

    def __init__(
        self, clips: Sequence[Clip], frames: dict[str, Any] | FrameSource, wanted: int, seed: int,
        classes: Sequence[str] = (),
    ) -> None:  # fmt: skip
        self.clips, self.source, self.wanted, self.seed, self.epoch = list(clips), frames, wanted, seed, 0
        self.number = {label: i for i, label in enumerate(classes)}

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, i: int) -> Sample:
        clip = self.clips[i]
        rng = random.Random(f"{self.seed} {self.epoch} {clip.key}")  # noqa: S311
        frames = frames_of(self.source, clip)
        chosen = frames[pick(len(frames), self.wanted, rng)]
        if self.number:
            return Sample(chosen, str(clip.label), clip.key, self.number[str(clip.label)])
        return Sample(chosen, rng.choice(clip.captions), clip.key, None)


def frames_of(source: dict[str, Any] | FrameSource, clip: Clip) -> Frames:
    frames = source[clip.key] if isinstance(source, dict) else source.frames(clip)
    if frames is None or not len(frames):
        raise VsearchError(f"{clip.video}: no frames of this video can be had")
    return frames


class Order(Sampler[int]):
    """A permutation that depends on seed and epoch alone, so a resumed run sees what an unbroken one would."""

    def __init__(self, count: int, seed: int) -> None:
        self.count, self.seed, self.epoch = count, seed, 0

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[int]:
        order = list(range(self.count))
        random.Random(f"order {self.seed} {self.epoch}").shuffle(order)  # noqa: S311
        return iter(order)


def collate(samples: Sequence[Sample], seed: int = 0) -> Batch:
    """Padded at the end to the longest. Pairs match for the same clip, the same sentence or the same class. What is
    drawn for the batch follows from `seed` and its clips."""
    video, mask = pad([s.frames for s in samples])
    keys, texts = np.array([s.key for s in samples]), np.array([s.text.strip().lower() for s in samples])
    match = (keys[:, None] == keys[None]) | (texts[:, None] == texts[None])
    numbers = [s.label for s in samples if s.label is not None]
    labels = torch.tensor(numbers) if numbers else None
    told = f"{seed} {[s.key for s in samples]}".encode()
    drawn = int.from_bytes(hashlib.blake2b(told, digest_size=8).digest(), "big")
    return Batch(video, mask, [s.text for s in samples], torch.from_numpy(match), labels, drawn)


def pad(frames: Sequence[Frames]) -> tuple[torch.Tensor, torch.Tensor]:
    """N arrays (T_i, ...) -> (N, T, ...) and mask (N, T). Vectors become float32, pictures stay uint8."""
    longest = max(map(len, frames))
    dtype = np.uint8 if frames[0].dtype == np.uint8 else np.float32
    out = np.zeros((len(frames), longest, *frames[0].shape[1:]), dtype)
    mask = np.zeros((len(frames), longest), bool)
    for i, item in enumerate(frames):
        out[i, : len(item)], mask[i, : len(item)] = item, True
    return torch.from_numpy(out), torch.from_numpy(mask)
