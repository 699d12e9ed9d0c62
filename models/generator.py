"""A small trained proposal generator on frozen frame vectors.

Boundaries and actionness over a temporal pyramid, and a head that judges any interval: how much of it would be an
action instance (its tIoU with the nearest one). After BSN and BMN (Lin et al. 2018, 2019), whose boundary and
completeness maps these are, but over CLIP-like frame vectors and without classes: it never sees a label.

Training mixes the annotated pieces of all videos anew at every step, so that a few minutes of annotated video
teach what a border looks like rather than what the training videos show.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from vsearch.errors import ModelError, VsearchError
from vsearch.maths import normalise, tiou
from vsearch.models.encoder import Vectors

if TYPE_CHECKING:
    import torch

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]

SCALES = (1, 2, 4, 8)  # of the pyramid, and of the change between the means on both sides of a frame
PEAKS_PER_MINUTE = 40
LONGEST_PAIR = 8  # a start is paired with this many ends that follow


@dataclass(frozen=True)
class GeneratorConfig:
    """dim: width of a frame vector; backbone: identity of what made the frames."""

    dim: int
    backbone: str
    hidden: int = 48
    dropout: float = 0.3


@dataclass(frozen=True)
class TrainingVideo:
    """Frame vectors (T, D) of a video and its action instances as frame ranges (N, 2), last exclusive."""

    vectors: Vectors
    instances: Ints


@dataclass(frozen=True)
class TrainingOptions:
    steps: int = 500
    rate: float = 2e-3
    pieces: int = 16  # mixed into one sequence a step
    seed: int = 0


class Generator:
    """A loaded generator: candidate intervals, and a score for any interval."""

    def __init__(self, config: GeneratorConfig, net: torch.nn.Module) -> None:
        self.config = config
        self.net = net.eval()

    def candidates(self, vectors: Vectors) -> Ints:
        """(T, D) frames -> (P, 2) intervals from likely starts to likely ends that follow, last exclusive."""
        import torch

        if len(vectors) < 2:
            return np.zeros((0, 2), dtype=np.int64)
        with torch.inference_mode():
            _, curves = self.net.curves(self._input(vectors))  # type: ignore[operator]
        starts, ends = (_peaks(curve.numpy(), len(vectors)) for curve in curves[1:])
        places = np.unique(np.concatenate([[0], starts]))
        ends = np.unique(np.concatenate([ends + 1, [len(vectors)]]))
        spans = [(s, e) for s in places.tolist() for e in ends[ends > s][:LONGEST_PAIR].tolist()]
        return np.asarray(spans, dtype=np.int64).reshape(-1, 2)

    def score(self, vectors: Vectors, spans: Ints) -> Floats:
        """(T, D) frames, (P, 2) frame ranges -> (P,) expected tIoU with an action instance, 0..1."""
        import torch

        if not len(spans):
            return np.zeros(0, dtype=np.float32)
        with torch.inference_mode():
            hidden, _ = self.net.curves(self._input(vectors))  # type: ignore[operator]
            logits = self.net.judge(hidden, torch.from_numpy(spans))  # type: ignore[operator]
            return torch.sigmoid(logits).numpy()

    def save(self, path: Path) -> None:
        """One safetensors file; the configuration is JSON in its header. Raises ModelError when it cannot be written."""
        from safetensors.torch import save

        from vsearch.models.recipes import checkpoint

        tensors = {name: tensor.contiguous() for name, tensor in self.net.state_dict().items()}
        checkpoint.write_whole(path, save(tensors, {"proposal_generator": json.dumps(asdict(self.config))}))

    def _input(self, vectors: Vectors) -> torch.Tensor:
        import torch

        if vectors.shape[1] != self.config.dim:
            raise ModelError(
                f"this proposal generator was trained on {self.config.backbone} ({self.config.dim} numbers a "
                f"frame), but the library's frames have {vectors.shape[1]}; train one for it"
            )
        return torch.from_numpy(normalise(vectors))


def load_generator(path: Path) -> Generator:
    """Raises ModelError for a file that is no generator."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as opened:
            config = GeneratorConfig(**json.loads((opened.metadata() or {})["proposal_generator"]))
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 - no mapping
        net = _net(config)
        net.load_state_dict(tensors)
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as fault:
        raise ModelError(f"{path} is no proposal generator ({type(fault).__name__}: {fault})") from fault
    return Generator(config, net)


def train_generator(
    videos: Sequence[TrainingVideo], backbone: str, options: TrainingOptions | None = None
) -> Generator:
    """Train on annotated videos, on the CPU; the same input gives the same weights.

    Raises VsearchError when there is no action instance to learn from.
    """
    import torch
    from torch.nn.functional import binary_cross_entropy_with_logits as bce

    options = options or TrainingOptions()
    pieces = _pieces(videos)
    if not any(is_action for _, is_action in pieces):
        raise VsearchError("there is no annotated action instance in these videos to learn from")
    config = GeneratorConfig(int(videos[0].vectors.shape[1]), backbone)
    rng = np.random.default_rng(options.seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(options.seed)
        net = _net(config).train()
        optimiser = torch.optim.AdamW(net.parameters(), options.rate, weight_decay=0.05)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, options.rate, options.steps)
        weight = torch.tensor([1.0, 6.0, 6.0]).view(3, 1)  # borders are rare
        for _ in range(options.steps):
            vectors, instances = _mix(rng, pieces, options.pieces)
            spans, overlaps = _sample_spans(rng, instances, len(vectors))
            hidden, curves = net.curves(torch.from_numpy(vectors))  # type: ignore[operator]
            target = torch.from_numpy(_targets(instances, len(vectors)))  # (3, T)
            judged = net.judge(hidden, torch.from_numpy(spans))  # type: ignore[operator]
            loss = bce(curves, target, pos_weight=weight) + 2 * bce(judged, torch.from_numpy(overlaps))
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
    return Generator(config, net)


def _net(config: GeneratorConfig) -> torch.nn.Module:
    """The network: hidden frames over a pyramid, three curves, and a judge of intervals."""
    import torch
    from torch import nn
    from torch.nn.functional import avg_pool1d, interpolate

    width = config.hidden

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.reduce = nn.Linear(config.dim, width)
            self.inject = nn.Linear(width + len(SCALES), width)
            self.levels = nn.ModuleList(nn.Conv1d(width, width, 3, padding=1) for _ in SCALES)
            self.heads = nn.Conv1d(width, 3, 3, padding=1)  # actionness, start, end
            self.judge_net = nn.Sequential(
                nn.Linear(7 * width + 1, 64), nn.GELU(), nn.Dropout(config.dropout), nn.Linear(64, 1)
            )
            self.drop = nn.Dropout(config.dropout)

        def curves(self, unit: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            """(T, D) unit frames -> hidden (T, H) and logits (3, T)."""
            frames = self.reduce(self.drop(unit * config.dim**0.5))
            mixed = torch.cat([frames, _changes(unit)], dim=1)  # (T, H + scales)
            x = torch.nn.functional.gelu(self.inject(mixed)).T[None]  # (1, H, T)
            out = x
            for scale, conv in zip(SCALES, self.levels, strict=True):
                coarse = x if scale == 1 else avg_pool1d(x, scale, ceil_mode=True)
                out = out + interpolate(
                    torch.nn.functional.gelu(conv(coarse)), size=x.shape[2], mode="nearest"
                )
            return out[0].T, self.heads(out)[0]

        def judge(self, hidden: torch.Tensor, spans: torch.Tensor) -> torch.Tensor:
            """(T, H), (P, 2) frame ranges -> (P,) logits of the tIoU with an instance."""
            count = len(hidden)
            sums = torch.cat([hidden.new_zeros(1, hidden.shape[1]), hidden.cumsum(0)])
            first, last = spans[:, 0], spans[:, 1]
            reach = ((last - first) // 2).clamp(min=2)
            before, after = (first - reach).clamp(min=0), (last + reach).clamp(max=count)
            inside, left, right = (
                _mean(sums, a, b) for a, b in ((first, last), (before, first), (last, after))
            )
            edges = [
                hidden[first],
                hidden[last - 1],
                hidden[(first - 1).clamp(min=0)],
                hidden[last.clamp(max=count - 1)],
            ]
            length = ((last - first).float().log() - 2.5)[:, None]
            return self.judge_net(torch.cat([inside, left, right, *edges, length], dim=1))[:, 0]

    return Net()


def _changes(unit: torch.Tensor) -> torch.Tensor:
    """(T, D) -> (T, scales): one minus the cosine between the means before each frame and from it on."""
    import torch

    sums = torch.cat([unit.new_zeros(1, unit.shape[1]), unit.cumsum(0)])
    places = torch.arange(len(unit))
    columns = []
    for scale in SCALES:
        before = _mean(sums, (places - scale).clamp(min=0), places)
        after = _mean(sums, places, (places + scale).clamp(max=len(unit)))
        columns.append(1 - torch.nn.functional.cosine_similarity(before, after))
    return torch.stack(columns, dim=1)


def _mean(sums: torch.Tensor, first: torch.Tensor, last: torch.Tensor) -> torch.Tensor:
    return (sums[last] - sums[first]) / (last - first).clamp(min=1)[:, None]


def _peaks(curve: Floats, count: int) -> Ints:
    """Frames that are higher than both neighbours, the highest ones in proportion to the length (at 2 fps)."""
    padded = np.pad(curve, 1, constant_values=-np.inf)
    found = np.flatnonzero((curve >= padded[:-2]) & (curve > padded[2:]))
    most = max(12, round(PEAKS_PER_MINUTE * count / 120))
    return np.sort(found[np.argsort(-curve[found], kind="stable")[:most]])


Piece = tuple[Floats, bool]


def _pieces(videos: Sequence[TrainingVideo]) -> list[Piece]:
    """Videos cut at the borders of their instances: unit frames, and whether a piece is an instance."""
    pieces: list[Piece] = []
    for video in videos:
        unit = normalise(video.vectors)
        inside = np.zeros(len(unit), dtype=bool)
        for first, last in video.instances.tolist():
            inside[first:last] = True
            if last > first:
                pieces.append((unit[first:last], True))
        cuts = np.flatnonzero(np.diff(np.pad(inside, 1, constant_values=True).astype(np.int8)))
        pieces += [(unit[a:b], False) for a, b in zip(cuts[::2].tolist(), cuts[1::2].tolist(), strict=True)]
    return pieces


def _mix(rng: np.random.Generator, pieces: Sequence[Piece], number: int) -> tuple[Floats, Ints]:
    """A new sequence of random pieces, sometimes cut short: frames (T, D) and its instances (N, 2)."""
    frames, instances, at = [], [], 0
    for i in rng.integers(0, len(pieces), number).tolist():
        piece, is_action = pieces[i]
        if len(piece) > 4 and rng.random() < 0.5:
            keep = int(rng.integers(len(piece) // 2, len(piece)))
            begin = int(rng.integers(0, len(piece) - keep + 1))
            piece = piece[begin : begin + keep]
        frames.append(piece)
        if is_action:
            instances.append((at, at + len(piece)))
        at += len(piece)
    return np.concatenate(frames), np.asarray(instances, dtype=np.int64).reshape(-1, 2)


def _targets(instances: Ints, count: int) -> Floats:
    """(3, T): inside an instance, its first frame, its last frame."""
    target = np.zeros((3, count), dtype=np.float32)
    for first, last in instances.tolist():
        target[0, first:last] = 1
        target[1, first] = target[2, last - 1] = 1
    return target


def _sample_spans(rng: np.random.Generator, instances: Ints, count: int) -> tuple[Ints, Floats]:
    """Intervals to judge, near instances and anywhere, with their best tIoU: (P, 2), (P,)."""
    anywhere = np.sort(rng.integers(0, count + 1, (96, 2)), axis=1)
    short = rng.integers(0, count, 96)[:, None] + np.stack(
        [np.zeros(96, np.int64), rng.integers(2, 40, 96)], axis=1
    )
    near = np.repeat(instances, 8, axis=0)
    jitter = np.rint(rng.normal(0, 0.25, near.shape) * (near[:, 1] - near[:, 0])[:, None]).astype(np.int64)
    both = np.stack([instances[:-1, 0], instances[1:, 1]], axis=1) if len(instances) > 1 else instances
    spans = np.clip(np.concatenate([anywhere, short, near + jitter, instances, both]), 0, count)
    spans = spans[spans[:, 1] > spans[:, 0]]
    return spans, tiou(spans, instances).max(axis=1, initial=0).astype(np.float32)
