"""Stage 7: learned prompts for action names, the towers frozen; minutes, and worth a rerun with every new weights.

python -m vsearch.models.mini.train.prompts --data ../shared/data --work /tmp/mini [--out models/mini]

Names and clips: the verb phrases of MSR-VTT captions ("a man is playing a guitar" -> "playing guitar") with their
videos, and the UCF101 clips with the 101 names. What is reported
(`default` in prompts.json: whether they are better than templates) is measured on UCF101 clips of classes that were not trained on: each fold of three
classes is judged by prompts trained on MSR-VTT and the other classes. Prompts of MSR-VTT alone are judged on all.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import io
import json
import re
import time
import zipfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from vsearch.maths import normalise
from vsearch.models import ACTION_TEMPLATES, Backbone, Pairs, PromptOptions, embed_names, train_prompts
from vsearch.models.action_prompts import Floats
from vsearch.models.backbone import MINI_DIR, load_mini
from vsearch.models.prompts import ContinuousPrompts

FOLDS, CLIP_FRAMES, BATCH = 5, 6, 128
LONGEST = 5  # words of a phrase
GENERAL, FINE = PromptOptions(steps=40), PromptOptions(steps=15, rate=1e-3)
SMALL = {
    "a",
    "an",
    "the",
    "his",
    "her",
    "their",
    "some",
    "to",
    "in",
    "on",
    "of",
    "with",
    "at",
    "for",
    "from",
    "is",
    "are",
}


@dataclass(frozen=True)
class Clips:
    """Unit vectors (N, D) and, for each, the names that are right."""

    vectors: Floats
    names: list[list[str]]


def main() -> None:
    import torch

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="the folder that the model card describes")
    parser.add_argument(
        "--work", type=Path, required=True, help="frame vectors are kept here, a file a model"
    )
    parser.add_argument("--out", type=Path, default=MINI_DIR, help="the folder of the weights")
    parser.add_argument("--videos", type=int, default=2000, help="MSR-VTT videos, one frame of each")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    args.work.mkdir(parents=True, exist_ok=True)
    fit_prompts(args.data, args.work, args.out, args.videos)


def embed_blend(backbone: Backbone, prompts: ContinuousPrompts, names: Sequence[str]) -> Floats:
    """(N, D) float32 unit vectors, half learned prompts and half ACTION_TEMPLATES.

    Prompts alone know less of names that they were not trained on.
    """
    filled = [normalise(backbone.encode_texts([t.format(n) for n in names])) for t in ACTION_TEMPLATES]
    return normalise(normalise(np.mean(filled, axis=0)) + embed_names(backbone, prompts, names))


def save_prompts(folder: Path, prompts: ContinuousPrompts, about: dict[str, Any]) -> None:
    """`prompts.safetensors` and `prompts.json`: `backbone` (identity) and whatever else is to be known."""
    from safetensors.torch import save_file

    save_file({"table": prompts.table.detach().cpu().contiguous()}, str(folder / "prompts.safetensors"))
    document = {**about, "prefix": prompts.prefix, "suffix": prompts.suffix}
    (folder / "prompts.json").write_text(json.dumps(document, indent=2) + "\n")


def fit_prompts(data: Path, work: Path, out: Path, videos: int = 2000) -> None:
    """Writes `prompts.safetensors` and `prompts.json` beside the weights in `out`, and prints the figures."""
    backbone = load_mini(out)
    begun = time.time()
    captioned = msrvtt_clips(backbone, data, work, videos)
    vocabulary, actions = ucf101_clips(backbone, data, work)
    labels = [names[0] for names in actions.names]
    print(
        f"{len(captioned.names)} videos with verb phrases, {len(labels)} UCF101 clips: {time.time() - begun:.0f} s"
    )
    answers = np.array([vocabulary.index(label) for label in labels])
    general = train_prompts(backbone, lambda step: [phrase_batch(captioned, step)], GENERAL)
    print(f"trained on MSR-VTT: {time.time() - begun:.0f} s")

    def tuned(rows: npt.NDArray[np.int64]):  # type: ignore[no-untyped-def]
        pairs = Pairs(vocabulary, actions.vectors[rows], answers[rows])
        return train_prompts(
            backbone, lambda step: [phrase_batch(captioned, 1000 + step), pairs], FINE, start=general
        )

    alone = np.zeros((len(labels), len(vocabulary)), dtype=np.float32)
    blended = np.zeros_like(alone)
    folds = np.random.default_rng(0).permutation(sorted(set(labels)))
    for k in range(FOLDS):
        unseen = np.isin(labels, folds[k::FOLDS])
        prompts = tuned(np.flatnonzero(~unseen))
        alone[unseen] = actions.vectors[unseen] @ embed_names(backbone, prompts, vocabulary).T
        blended[unseen] = actions.vectors[unseen] @ embed_blend(backbone, prompts, vocabulary).T
    filled = [normalise(backbone.encode_texts([t.format(n) for n in vocabulary])) for t in ACTION_TEMPLATES]
    scores = {
        "templates": actions.vectors @ normalise(np.mean(filled, axis=0)).T,
        "prompts, MSR-VTT alone": actions.vectors @ embed_names(backbone, general, vocabulary).T,
        "prompts, other classes too": alone,
        "prompts and templates, MSR-VTT alone": actions.vectors
        @ embed_blend(backbone, general, vocabulary).T,
        "prompts and templates (used)": blended,
    }
    figures = {what: accuracy(own, answers) for what, own in scores.items()}
    for what, (top1, top5) in figures.items():
        print(f"{what:<38} top-1 {top1:5.1f}  top-5 {top5:5.1f}")
    kept, judged, plain = (
        tuned(np.arange(len(labels))),
        figures["prompts and templates (used)"],
        figures["templates"],
    )
    about = {
        "what": "vectors around an action's name, learned on MSR-VTT verb phrases and UCF101 clips",
        "backbone": backbone.identity,
        "table": hashlib.blake2b(kept.table.numpy().tobytes(), digest_size=8).hexdigest(),
        "default": judged[0] >= plain[0] and judged[1] >= plain[1],
        "ucf101_top1_top5_of_101_names_classes_unseen": {
            what: [round(share, 1) for share in own] for what, own in figures.items()
        },
    }
    save_prompts(out, kept, about)
    print(f"written: {out}/prompts.safetensors, default {about['default']}: {time.time() - begun:.0f} s")


def phrases_of(caption: str) -> list[str]:
    """'a man is playing a guitar on a stage' -> ['playing guitar']: what follows is/are, without small words."""
    found = []
    for match in re.finditer(
        r"\b(?:is|are|was|were)\s+([a-z]+ing\b(?:(?! (?:is|are|was|were)\b)[a-z ])*)", caption.lower()
    ):
        words: list[str] = []
        for word in match.group(1).split():
            if word in {"and", "while", "then", "as", "who", "that", "which", "in", "on", "at", "near", "by"}:
                break
            if word not in SMALL:
                words.append(word)
        found.append(" ".join(words[:LONGEST]))
    return found


def phrase_batch(clips: Clips, step: int) -> Pairs:
    """BATCH clips, each with one of its phrases; rare ones are likelier, since they say more."""
    rng = np.random.default_rng(step)
    rows = rng.choice(len(clips.names), min(BATCH, len(clips.names)), replace=False)
    often = Counter(name for names in clips.names for name in set(names))
    picked = []
    for row in rows.tolist():
        weights = np.array([1 / often[name] for name in clips.names[row]])
        picked.append(clips.names[row][int(rng.choice(len(weights), p=weights / weights.sum()))])
    names = list(dict.fromkeys(picked))
    return Pairs(names, clips.vectors[rows], np.array([names.index(name) for name in picked]))


def msrvtt_clips(backbone: Backbone, data: Path, work: Path, videos: int) -> Clips:
    """Training videos whose captions have verb phrases: the vector of each one's middle picture."""
    from vsearch.models.mini.train.data import list_pictures, split_groups

    pictures = list_pictures(data)
    groups = [g for g in split_groups(data, pictures)["train"] if g.name.startswith("video")]
    named = [(g, [p for c in g.captions for p in phrases_of(c)]) for g in groups]
    chosen = [(g, phrases) for g, phrases in named if phrases][:videos]
    archives: dict[str, zipfile.ZipFile] = {}

    def open_one(row: int) -> Image.Image:
        picture = pictures[row]
        archive = archives.setdefault(picture.archive, zipfile.ZipFile(data / picture.archive))
        return Image.open(io.BytesIO(archive.read(picture.member))).convert("RGB")

    kept = work / f"prompts_msrvtt_{len(chosen)}_{_tag(backbone)}.npy"
    if not kept.is_file():
        rows = [g.pictures[len(g.pictures) // 2] for g, _ in chosen]
        parts = [_see(backbone, [open_one(row) for row in rows[i : i + 32]]) for i in range(0, len(rows), 32)]
        np.save(kept, np.concatenate(parts))
    return Clips(np.load(kept), [phrases for _, phrases in chosen])


def ucf101_clips(backbone: Backbone, data: Path, work: Path) -> tuple[list[str], Clips]:
    """(the 101 names, the clips with their name): means of CLIP_FRAMES frames, evenly over each clip."""
    import av

    lines = (data / "annotations/ucf101/classInd.txt").read_text().split("\n")
    classes = [line.split()[1] for line in lines if line]
    with open(data / "videos/ucf101.csv", encoding="utf8") as file:
        rows = list(csv.DictReader(file))
    kept = work / f"prompts_ucf101_{_tag(backbone)}.npy"
    if not kept.is_file():
        vectors = []
        for row in rows:
            with av.open(str(data / "videos/ucf101" / row["video"])) as container:
                frames = list(container.decode(video=0))
            middle = (np.arange(CLIP_FRAMES) + 0.5) * len(frames) / CLIP_FRAMES
            seen = _see(backbone, [frames[int(i)].to_image() for i in middle])
            vectors.append(seen.mean(axis=0))
        np.save(kept, normalise(np.stack(vectors)))
    names = [re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower() for name in classes]
    own = [[names[classes.index(row["label"])]] for row in rows]
    return names, Clips(np.load(kept), own)


def accuracy(scores: Floats, answers: npt.NDArray[np.int64]) -> tuple[float, float]:
    """(top-1, top-5) in % of scores (clips, names)."""
    right = scores[np.arange(len(answers)), answers][:, None]
    rank = (scores > right).sum(axis=1)
    return 100 * float((rank < 1).mean()), 100 * float((rank < 5).mean())


def _see(backbone: Backbone, pictures: Sequence[Image.Image]) -> Floats:
    """Unit vectors (N, D), through the product's own preprocessing: the short side to `size`, centre crop."""
    side = (backbone.preprocess.size, backbone.preprocess.size)
    squares = [np.asarray(ImageOps.fit(p, side, Image.Resampling.BICUBIC)) for p in pictures]
    return normalise(backbone.encode_frames(np.stack(squares)))


def _tag(backbone: Backbone) -> str:
    return backbone.identity.split("@")[-1][:12]


if __name__ == "__main__":
    main()
