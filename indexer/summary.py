"""What a run tells: where it stands, and what it did."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Progress:
    """Where a run stands. `warning` marks a report about one file or folder."""

    stage: str
    videos: int = 0
    videos_done: int = 0
    frames: int = 0
    frames_per_s: float = 0.0
    eta_s: float | None = None
    warning: str | None = None


Report = Callable[[Progress], None]


@dataclass(frozen=True)
class Summary:
    """What a run did, in videos. `failures`: path and reason of those that failed now or still."""

    found: int = 0
    unchanged: int = 0
    indexed: int = 0
    partial: int = 0
    moved: int = 0
    copies: int = 0
    missing: int = 0
    to_do: int = 0
    frames: int = 0
    seconds: float = 0.0
    dry_run: bool = False
    failures: list[tuple[str, str]] = field(default_factory=list)

    def lines(self) -> list[str]:
        """The run in a sentence."""
        if not self.found and not self.missing:
            return ["no videos found"]
        parts = [f"{self.found} videos found"]
        if self.dry_run:
            parts.append(f"{self.to_do} would be decoded")
        named = (
            (self.indexed, "indexed"), (self.partial, "of them in part"), (self.unchanged, "unchanged"),
            (self.moved, "moved"), (self.copies, "copies of known content"), (self.missing, "missing"),
            (len(self.failures), "failed"),
        )  # fmt: skip
        parts += [f"{count} {name}" for count, name in named if count]
        rate = f"; {self.frames} frames in {self.seconds:.1f} s" if self.frames else ""
        return [", ".join(parts) + rate]
