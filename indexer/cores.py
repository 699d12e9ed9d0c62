"""How many decoders work at once."""

from __future__ import annotations

from collections.abc import Sequence

from vsearch.cores import available_cores


def default_workers(devices: Sequence[str] = ("cpu",), decoder: str = "auto") -> int:
    """As many as there are cores where these encode, too, at most eight: decoders wait while the encoder is behind, and
    it does not wait for one of them alone where decoding takes longer. Where GPUs encode, all cores but one for each of
    them, at most 32: a GPU takes what many cores decode. Where GPUs decode, four for each: a process takes some
    hundred megabytes of its memory, and it has one to seven units that decode."""
    cores = available_cores()
    if decoder == "nvdec":
        return min(cores, 4 * len(devices))
    if devices[0].startswith("cuda"):
        return max(1, min(32, cores - len(devices)))
    return min(8, cores)
