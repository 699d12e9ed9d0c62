"""What a check of a library is told and tells; see verify.py."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vsearch.library.catalogue import Catalogue
from vsearch.library.frames import FrameStore
from vsearch.records import Embed, EncoderInfo, NewMoment

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


@dataclass(frozen=True)
class Problem:
    """What is wrong, and what was done about it (None: nothing yet, or nothing can be)."""

    what: str
    done: str | None = None


@dataclass(frozen=True)
class Report:
    problems: tuple[Problem, ...]
    notes: tuple[str, ...]

    @property
    def clean(self) -> bool:
        return not self.problems

    @property
    def mended(self) -> bool:
        return all(problem.done is not None for problem in self.problems)


@dataclass(frozen=True)
class Makers:
    """What other rooms can make again, and how far a check has come.

    `embed`: of the encoder that answers, or should. `windows`: the moments that an encoder has of frames, from their
    times (T,) in ms and the video's duration in ms. `fingerprint` of a file, may raise OSError. `poster`: a video
    file's JPEG. `sound_spec`: whether a spec is the encoder's own. `spec`: one made anew for an encoder whose own is
    lost. `progress`: of videos, done and all.
    """

    embed: Embed | None = None
    windows: Callable[[EncoderInfo, npt.NDArray[np.int64], int], list[NewMoment]] | None = None
    fingerprint: Callable[[Path], str] | None = None
    poster: Callable[[Path], bytes | None] | None = None
    sound_spec: Callable[[EncoderInfo], bool] | None = None
    spec: Callable[[str, str], dict[str, Any] | None] | None = None
    progress: Callable[[int, int], None] | None = None


@dataclass
class Check:
    """One pass over a library."""

    catalogue: Catalogue
    folder: Path
    repair: bool
    makers: Makers
    store: FrameStore
    told: dict[str, dict[str, Any]]  # fingerprint: what its current frame file says
