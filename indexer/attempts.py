"""What decoding a job has come to, and of which content."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from vsearch.indexer.decode import JobDone, JobFailed
from vsearch.indexer.encoding import VideoFrames
from vsearch.indexer.fingerprint import Content

if TYPE_CHECKING:
    from vsearch.library import Job


@dataclass(frozen=True)
class Attempt:
    """What decoding a job has come to."""

    job: Job
    end: JobDone | JobFailed
    frames: VideoFrames | None

    @property
    def covered_ms(self) -> int:
        return 0 if isinstance(self.end, JobFailed) or self.frames is None else self.end.covered_ms


@dataclass(frozen=True)
class Settled:
    """A job that is settled, as of the content that was decoded. `reason`: why it failed, or is there in part."""

    job: Job
    reason: str | None
    failed: bool


def planned_content(job: Job) -> Content | None:
    """What was known of the file when the run was planned."""
    return Content(job.fingerprint, job.files[0].size, job.files[0].mtime_ns) if job.fingerprint else None


def identified(job: Job, content: Content) -> Job:
    """The job of the content that was decoded; its other files are for next time if that is not what they have."""
    first = replace(job.files[0], size=content.size, mtime_ns=content.mtime_ns)
    others = job.files[1:] if content.fingerprint == job.fingerprint else ()
    return replace(job, files=(first, *others), fingerprint=content.fingerprint)
