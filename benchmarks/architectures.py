"""Which architectures work, from loading to a cold query without torch: a table, one row each.

    python benchmarks/architectures.py [NAME…]

Each is built with random weights in a folder as the hub serves it, with a small tokenizer where it has one of Hugging
Face, then indexes a video and answers through the command. Nothing is downloaded. Cosines are the least between the
vectors of torch and those of the exported towers, over 4 pictures and 4 sentences.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

NAMES = (
    "ViT-S-32-alt", "ViT-B-32-quickgelu", "RN50", "coca_ViT-B-32", "convnext_base", "EVA02-B-16", "MobileCLIP2-S0",
    "ViTamin-S", "PE-Core-T-16-384", "ViT-L-14-CLIPA", "ViT-B-16-SigLIP", "ViT-B-32-SigLIP2-256", "roberta-ViT-B-32",
    "xlm-roberta-base-ViT-B-32", "mt5-base-ViT-B-32", "nllb-clip-base",
)  # fmt: skip
SENTENCES = [
    "a dog running on grass",
    "ein Hund läuft über das Gras",
    "狗在草地上奔跑",
    "собака бежит по траве",
]


def build(name: str, folder: Path) -> None:
    """Random weights, the configuration, and a tokenizer whose numbers stay below the published one's."""
    import open_clip
    import torch
    from safetensors.torch import save_file

    from vsearch.models.hf_text import described_text_tower

    torch.manual_seed(0)
    config = open_clip.get_model_config(name)
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": {}}))
    with described_text_tower(config, None) as described:
        clip = open_clip.create_model(name, load_weights=False, pretrained_text=False, **described)
    state = {k: v.contiguous().clone() for k, v in clip.state_dict().items()}
    save_file(state, folder / "open_clip_model.safetensors")
    text = config["text_cfg"]
    if not text.get("hf_tokenizer_name"):
        return
    from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers

    begin, end, pad = (
        ("[CLS]", "[SEP]", "[PAD]") if "bert" in text["hf_tokenizer_name"][:4] else ("<s>", "</s>", "<pad>")
    )
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    special = [begin, pad, end, "<unk>"]  # the numbers of XLM-R, NLLB and RoBERTa
    trainer = trainers.UnigramTrainer(
        vocab_size=400, special_tokens=special, unk_token="<unk>", show_progress=False
    )
    tokenizer.train_from_iterator(SENTENCES, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{begin} $A {end}", special_tokens=[(begin, 0), (end, 2)]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    said = {"bos_token": begin, "eos_token": end, "sep_token": end, "pad_token": pad, "unk_token": "<unk>"}
    said["tokenizer_class"] = "PreTrainedTokenizerFast"
    (folder / "tokenizer_config.json").write_text(json.dumps(said))


def compare(folder: str) -> None:
    """Prints the number of parameters, the identity, and both cosines; none where a side is not exported."""
    from vsearch.models import load_backbone

    whole = load_backbone(folder, "cpu")
    size = whole.preprocess.size
    frames = np.random.default_rng(0).integers(0, 256, (4, size, size, 3), dtype=np.uint8)
    expected, texts = whole.encode_frames(frames), whole.encode_texts(SENTENCES)
    parameters = sum(p.numel() for p in whole.clip.parameters())
    exported = load_backbone(folder, "cpu", whole.identity)
    quick = exported._clip is None
    found = [cosine(exported.encode_frames(frames), expected)] if quick else [None]
    reads = quick and exported._towers is not None and exported._towers.reads_texts
    found.append(cosine(exported.encode_texts(SENTENCES), texts) if reads else None)
    print(json.dumps([parameters / 1e6, size, *found]))


def cosine(one: np.ndarray, other: np.ndarray) -> float:
    return float(((one * other).sum(1) / np.linalg.norm(one, axis=1) / np.linalg.norm(other, axis=1)).min())


COLD = (
    "import sys; from vsearch.cli import main; sys.argv = ['vsearch', 'query', sys.argv[1], '--no-helper']\n"
    "try:\n    main()\nexcept SystemExit: pass\n"
    "print([m for m in 'torch open_clip transformers'.split() if m in sys.modules], file=sys.stderr)"
)


def row(name: str) -> str:
    """The table's row of one architecture, each step in a process of its own."""
    with tempfile.TemporaryDirectory(prefix="arch-") as place:
        folder, videos = Path(place) / name, Path(place) / "videos"
        folder.mkdir(), videos.mkdir()
        environment = os.environ | {
            "VSEARCH_LIBRARY": f"{place}/library", "XDG_CACHE_HOME": f"{place}/cache", "HF_HUB_OFFLINE": "1",
            "VSEARCH_HELPER": "0",
        }  # fmt: skip

        def run(*arguments: str) -> subprocess.CompletedProcess[str]:
            return subprocess.run(
                [sys.executable, *arguments], capture_output=True, text=True, env=environment
            )

        here = str(Path(__file__).resolve())
        steps = ["no"] * 4
        built = run(here, "--build", name, str(folder))
        if built.returncode:
            return f"| {name} | | | cannot be built: {built.stderr.strip().splitlines()[-1][:80]} |"
        run(here, "--video", str(videos / "one.mp4"))
        indexed = run("-m", "vsearch", "index", str(videos), "--model", str(folder))
        if indexed.returncode:
            return f"| {name} | | | {indexed.stderr.strip().splitlines()[-1][:120]} |"
        asked = run("-c", COLD, SENTENCES[1])
        answered = "one.mp4" in asked.stdout
        compared = run(here, "--compare", str(folder))
        if compared.returncode:
            return f"| {name} | | | yes | {'yes' if answered else 'no'} | {compared.stderr[-100:]} |"
        parameters, size, image, text = json.loads(compared.stdout)
        steps = ["yes", "yes" if answered else "no", "yes" if asked.stderr.rstrip().endswith("[]") else "no"]
        cosines = [f"{c:.7f}" if c is not None else "by torch" for c in (image, text)]
        return f"| {name} | {parameters:.0f} | {size} | {' | '.join([*steps, *cosines])} |"


def main() -> None:
    if sys.argv[1:2] == ["--build"]:
        build(sys.argv[2], Path(sys.argv[3]))
    elif sys.argv[1:2] == ["--compare"]:
        compare(sys.argv[2])
    elif sys.argv[1:2] == ["--video"]:
        sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
        from tests.media import write_video

        write_video(Path(sys.argv[2]))
    else:
        print(
            "| architecture | M parameters | pixels | loads, indexes | answers | cold query without torch | cosine, pictures | cosine, sentences |"
        )
        print("| --- | --- | --- | --- | --- | --- | --- | --- |")
        for name in sys.argv[1:] or NAMES:
            print(row(name), flush=True)


if __name__ == "__main__":
    main()
