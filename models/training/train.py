"""Training a recipe: any number of devices through accelerate, resumable, stopped by a validation part.

A run's folder holds `checkpoint.json` and `weights.safetensors` (the best epoch by validation), `last.*` (to
go on from), `log.csv` and, where tensorboard is installed, its event files. Test data is never looked at here.
"""

from __future__ import annotations

import csv
import hashlib
import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from vsearch.errors import VsearchError
from vsearch.models.backbone import Backbone
from vsearch.models.recipes import Batch, Recipe, VideoText, checkpoint
from vsearch.models.training.datasets import Clip, Dataset
from vsearch.models.training.evaluate import Evaluation, evaluate, is_recognition
from vsearch.models.training.samples import FrameSource, Order, Samples, collate

Report = Callable[[str], None]


@dataclass(frozen=True)
class TrainOptions:
    """`epochs`, `batch` and `lr` None: the recipe's. `batch` is of one process; `accumulate` batches make a step.
    `patience`: epochs without a better validation score before stopping. `precision`: no, fp16 or bf16."""

    epochs: int | None = None
    batch: int | None = None
    lr: float | None = None
    seed: int = 0
    accumulate: int = 1
    precision: str = "no"
    validation_share: float = 0.1
    patience: int = 5
    resume: bool = False


@dataclass(frozen=True)
class Trained:
    """Where the best weights are, how good they were on the validation part, and how long epochs took."""

    folder: Path
    epochs: int
    best_epoch: int
    validation: Evaluation
    seconds_per_epoch: float


def train(
    recipe: Recipe, backbone: Backbone, data: Dataset, frames: dict[str, Any] | FrameSource, folder: Path,
    options: TrainOptions, report: Report = lambda line: None,
) -> Trained:  # fmt: skip
    """Train on `data`, whose clips `frames` must all know. Raises VsearchError when that cannot work."""
    accelerator = _accelerator(options, backbone.device)
    torch.manual_seed(options.seed)
    training, validation = hold_out(data.clips, options.validation_share)
    classes = data.labels if is_recognition(data.clips) else []
    model = VideoText(recipe, backbone, classes)
    if not any(True for _ in model.trained()):
        raise VsearchError(
            f"recipe {recipe.name} has nothing to train with both towers frozen; zero-shot needs no training"
        )
    model.kept_texts = {}
    run = _Run(model, backbone, folder, options, accelerator, len(training))
    held_out = Dataset(data.name, data.split, tuple(validation), data.query_unit)
    samples = Samples(training, frames, recipe.frames, options.seed, classes)
    about = {
        "name": data.name, "split": data.split, "hash": data.digest, "clips": len(data.clips),
        "validation_clips": len(validation), "videos": sorted({clip.video for clip in data.clips}),
    }  # fmt: skip
    while run.epoch < run.epochs and run.epoch - run.best_epoch < options.patience:
        started = time.monotonic()
        mean = run.train_epoch(samples)
        run.seconds.append(time.monotonic() - started)
        found = evaluate(accelerator.unwrap_model(run.model), held_out, frames)
        run.after_epoch(found, mean, about)
        if accelerator.is_main_process:
            loss, took = sum(mean.values()), run.seconds[-1]
            report(
                f"epoch {run.epoch}/{run.epochs}: loss {loss:.4f}, validation {found.score:.2f}, {took:.1f} s"
            )
    if run.best is None:
        raise VsearchError(f"{folder}: this run is finished; train into another folder or raise --epochs")
    mean_s = sum(run.seconds) / max(1, len(run.seconds))
    return Trained(folder, run.epoch, run.best_epoch, run.best, mean_s)


def hold_out(clips: Sequence[Clip], share: float) -> tuple[list[Clip], list[Clip]]:
    """Training and validation clips, apart by video, the same on every machine: the smallest hashes are held out.

    With classes the share is taken of every class. Raises VsearchError when one part would be empty.
    """
    groups: dict[str, list[str]] = {}
    recognition = is_recognition(clips)
    for clip in clips:
        groups.setdefault(str(clip.label) if recognition else "", []).append(clip.video)
    held: set[str] = set()
    for videos in groups.values():
        ordered = sorted(set(videos), key=lambda v: hashlib.blake2b(v.encode(), digest_size=8).digest())
        held |= set(ordered[: max(1, round(share * len(ordered)))])
    training = [clip for clip in clips if clip.video not in held]
    if len(training) < 2:
        raise VsearchError(f"{len(clips)} clips are too few to train on and hold out some for validation")
    return training, [clip for clip in clips if clip.video in held]


def _accelerator(options: TrainOptions, device: str) -> Any:
    try:
        from accelerate import Accelerator
        from accelerate.utils import DistributedDataParallelKwargs
    except ImportError as fault:
        raise VsearchError(
            "training needs accelerate; install it with `pip install 'vsearch[train]'`"
        ) from fault
    if device.startswith("cuda:"):
        torch.cuda.set_device(device)
    return Accelerator(
        mixed_precision=options.precision,
        gradient_accumulation_steps=options.accumulate,
        step_scheduler_with_optimizer=False,
        cpu=device == "cpu",
        # parts that cannot learn in a step, as behind zero convolutions, would stop DDP
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],
    )


class _Run:
    """State of a training that lives as long as it runs."""

    def __init__(
        self,
        model: VideoText,
        backbone: Backbone,
        folder: Path,
        options: TrainOptions,
        accelerator: Any,
        clips: int,
    ) -> None:
        part = model.recipe.optimiser
        self.backbone, self.folder, self.options, self.accelerator = backbone, folder, options, accelerator
        self.epochs = options.epochs or part.epochs
        batch = min(options.batch or part.batch, clips)
        groups = model.groups()
        if options.lr is not None:  # the recipe's proportion between new parts and the backbone is kept
            for group in groups:
                group["lr"] *= options.lr / part.lr
        optimiser = torch.optim.AdamW(groups, betas=(0.9, part.beta2), eps=1e-8)
        self.rates = [group["lr"] for group in groups]
        self.order = Order(clips, options.seed)
        self.batch = batch
        self.model, self.optimiser = accelerator.prepare(model, optimiser)
        self.epoch, self.best_epoch, self.step = 0, 0, 0
        self.best: Evaluation | None = None
        self.seconds: list[float] = []
        self.steps = max(
            1, self.epochs * (clips // batch) // (options.accumulate * accelerator.num_processes)
        )
        self.names = [name for name, _ in model.trained()]
        if options.resume:
            self._resume(model)

    def train_epoch(self, samples: Samples) -> dict[str, float]:
        """Mean losses by name."""
        samples.epoch = self.order.epoch = self.epoch
        torch.manual_seed(self.options.seed * 100_003 + self.epoch)
        loader: Any = torch.utils.data.DataLoader(
            samples,  # type: ignore[arg-type]
            self.batch,
            sampler=self.order,
            drop_last=True,
            collate_fn=partial(collate, seed=self.options.seed * 100_003 + self.epoch),
        )
        if self.accelerator.num_processes > 1:
            loader = self.accelerator.prepare(loader)
        self.model.train()
        sums: dict[str, float] = {}
        for batch in loader:
            with self.accelerator.accumulate(self.model):
                for group, rate in zip(self.optimiser.param_groups, self.rates, strict=True):
                    group["lr"] = rate * self._share()
                parts = self.model(_to(batch, self.accelerator.device))
                loss = sum(parts.values())
                if not torch.isfinite(loss):
                    raise VsearchError(
                        f"the loss became {float(loss)} in epoch {self.epoch + 1}; lower --lr or use --precision no"
                    )
                self.accelerator.backward(loss)
                if self.accelerator.sync_gradients:
                    self.accelerator.clip_grad_norm_(
                        self.model.parameters(), self._recipe.optimiser.clip_norm
                    )
                    self.step += 1
                self.optimiser.step()
                self.optimiser.zero_grad()
                self.accelerator.unwrap_model(self.model).after_step()
            for name, value in parts.items():
                sums[name] = sums.get(name, 0.0) + float(value.detach())
        self.epoch += 1
        return {name: value / max(1, len(loader)) for name, value in sums.items()}

    @property
    def _recipe(self) -> Recipe:
        return self.accelerator.unwrap_model(self.model).recipe

    def _share(self) -> float:
        """Of the learning rate at this step: linear warm-up, then cosine or constant."""
        part, at = self._recipe.optimiser, self.step / self.steps
        if at < part.warmup:
            return (self.step + 1) / max(1.0, part.warmup * self.steps)
        if part.schedule == "constant":
            return 1.0
        progress = min(1.0, (at - part.warmup) / (1 - part.warmup))
        return part.floor + (1 - part.floor) * 0.5 * (1 + math.cos(math.pi * progress))

    def after_epoch(self, found: Evaluation, mean: dict[str, float], about: dict[str, Any]) -> None:
        better = self.best is None or found.score > self.best.score
        if better:
            self.best, self.best_epoch = found, self.epoch
        if not self.accelerator.is_main_process:
            return
        model = self.accelerator.unwrap_model(self.model)
        if better:
            figures = {f"validation.{k}": v for k, v in found.figures.items()}
            checkpoint.save(self.folder, model, self.backbone, about, figures, self.options.seed)
        self._save_state(model)
        self._log(found, mean)

    def _log(self, found: Evaluation, mean: dict[str, float]) -> None:
        row = {"epoch": self.epoch, "seconds": round(self.seconds[-1], 3), **mean, **found.figures}
        path = self.folder / "log.csv"
        fresh = self.epoch == 1 or not path.is_file()
        with path.open("w" if fresh else "a", newline="") as file:
            writer = csv.DictWriter(file, list(row))
            if fresh:
                writer.writeheader()
            writer.writerow(row)
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:  # the CSV has everything
            return
        with SummaryWriter(str(self.folder)) as board:
            for name, value in row.items():
                board.add_scalar(name, value, self.epoch)

    def _save_state(self, model: VideoText) -> None:
        """Weights and AdamW's moments as tensors, the rest as JSON; the JSON last, it makes the state valid."""
        from safetensors.torch import save as to_bytes

        tensors = {f"weight.{name}": p.detach().cpu().contiguous() for name, p in model.trained()}
        where = {id(p): name for name, p in model.trained()}
        for parameter, state in self.optimiser.state.items():
            for kind, value in state.items():
                tensors[f"{kind}.{where[id(parameter)]}"] = value.detach().cpu().contiguous()
        content = to_bytes(tensors)
        name = f"last-{self.epoch}.safetensors"
        checkpoint.write_whole(self.folder / name, content)
        state = {
            "weights": name, "epoch": self.epoch, "step": self.step, "best_epoch": self.best_epoch,
            "best": asdict(self.best) if self.best else None, "epochs": self.epochs,
            "options": _fixed(self.options), "recipe": self._recipe.as_dict(),
        }  # fmt: skip
        checkpoint.write_whole(self.folder / "last.json", json.dumps(state).encode())
        for old in self.folder.glob("last-*.safetensors"):
            if old.name != name:
                old.unlink()

    def _resume(self, model: VideoText) -> None:
        from safetensors.torch import load_file

        path = self.folder / "last.json"
        if not path.is_file():
            return  # nothing was finished yet: start from the beginning
        state = json.loads(path.read_text())
        if state["recipe"] != model.recipe.as_dict() or {
            k: v for k, v in state["options"].items() if k != "epochs"
        } != _fixed(self.options):
            raise VsearchError(
                f"{self.folder} was begun with another recipe or other options; resume with the same ones"
            )
        tensors = load_file(self.folder / state["weights"])
        weights = {n.removeprefix("weight."): t for n, t in tensors.items() if n.startswith("weight.")}
        checkpoint.put(model, weights, path)
        for name, parameter in model.trained():
            kept = {kind: tensors.get(f"{kind}.{name}") for kind in ("step", "exp_avg", "exp_avg_sq")}
            if kept["step"] is not None:
                self.optimiser.state[parameter] = {
                    kind: value if kind == "step" else value.to(parameter.device)  # type: ignore[union-attr]
                    for kind, value in kept.items()
                }
        self.epoch, self.step, self.best_epoch = state["epoch"], state["step"], state["best_epoch"]
        self.best = Evaluation(**state["best"]) if state["best"] else None


def _fixed(options: TrainOptions) -> dict[str, Any]:
    """What a resumed run must share with the one it continues; it may go on for longer."""
    return {k: v for k, v in asdict(options).items() if k not in ("resume", "patience", "epochs")}


def _to(batch: Batch, device: torch.device) -> Batch:
    labels = None if batch.labels is None else batch.labels.to(device)
    return Batch(
        batch.video.to(device), batch.mask.to(device), batch.texts, batch.match.to(device), labels, batch.seed
    )
