"""A recipe made into one trainable module: towers, prompts, temporal head, similarity and losses put together.

Two ways in for a video: frame vectors (B, T, D) that were computed before, when the recipe leaves the image
tower alone, or raw frames (B, T, S, S, 3) uint8.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from vsearch.errors import ModelError
from vsearch.models.backbone import Backbone
from vsearch.models.prompts import TEMPLATES, ContinuousPrompts, VideoSpecificPrompts, fill
from vsearch.models.recipes.recipe import Recipe
from vsearch.models.recipes.similarity import TightTransformer, cosine
from vsearch.models.recipes.temporal import pool, start_from_text, temporal_layers
from vsearch.models.recipes.text_tower import (
    MaskedWordHead,
    TextAdapters,
    label_words,
    mask_words,
    read,
    read_short,
    reads_left_to_right,
    text_parts,
)
from vsearch.models.recipes.towers import Frames, build_tower, require_vit
from vsearch.models.training import losses

IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Batch:
    """video: (B, T, D) float vectors or (B, T, S, S, 3) uint8 frames; mask (B, T) of real frames; one sentence
    a video. match (B, B): which pairs belong together. labels (B,) class numbers, for data with classes. seed: of what
    is drawn for this batch, templates and masked words."""

    video: Tensor
    mask: Tensor
    texts: list[str]
    match: Tensor
    labels: Tensor | None = None
    seed: int = 0


@dataclass(frozen=True)
class VideoSide:
    """vectors (B, D); frames (B, T, D) before pooling; cls, patches of the last layer where the tower ran."""

    vectors: Tensor
    frames: Tensor
    mask: Tensor
    cls: Tensor | None = None
    patches: Tensor | None = None


class VideoText(nn.Module):
    """The model of a recipe on a backbone. `labels`: class names, for the parts that need a fixed list.

    The backbone's own module is used, and trained in place where the recipe says so. Raises ModelError when the
    backbone cannot carry the recipe.
    """

    def __init__(self, recipe: Recipe, backbone: Backbone, labels: Sequence[str] = ()) -> None:
        super().__init__()
        self.recipe, self.labels, self.tokenizer = recipe, list(labels), backbone.tokenizer
        self.clip: Any = backbone.clip.requires_grad_(False)
        tower = self._tower(backbone)  # first: a seed gives the same start as ever
        temporal = temporal_layers(recipe.temporal, backbone.dim, lambda: self.clip)
        self.new = nn.ModuleDict({"tower": tower, "temporal": temporal})
        if recipe.text.kind == "prompts":
            self.new["prompts"] = ContinuousPrompts(
                self._text_width(), recipe.text.prefix, recipe.text.suffix, recipe.text.released_layout,
                text_parts(self.clip).positional_embedding.shape[0],
            )  # fmt: skip
        if recipe.text.adapters:
            self.new["text"] = TextAdapters(self._text_width(), recipe.text.hidden, recipe.text.adapters)
        self._similarity(backbone.dim)
        self._class_heads(backbone.dim)
        self._train_backbone()
        self.kept_texts: dict[str, Tensor] | None = (
            None  # of sentences read before, where those are to be kept
        )
        own = backbone.preprocess.mean, backbone.preprocess.std
        self.mean, self.std = IMAGENET if recipe.normalisation == "imagenet" else own
        self.to(backbone.device)

    def _tower(self, backbone: Backbone) -> nn.Module:
        part = self.recipe.tower
        options: dict[str, Any] = {}
        if part.kind == "ted":
            options = {
                "hidden": part.hidden,
                "before_attention": part.before_attention,
                "before_mlp": part.before_mlp,
            }
        return build_tower(part.kind, backbone.clip, **options)

    def _similarity(self, dim: int) -> None:
        kind = self.recipe.similarity.kind
        if kind == "tight":
            tight = TightTransformer(dim)
            parts = text_parts(self.clip)
            start_from_text(tight, parts.transformer.resblocks, parts.positional_embedding)
            self.new["tight"] = tight
        elif kind == "video-prompts":
            visual = require_vit(self.clip, "video-specific prompting")
            self.new["video_prompts"] = VideoSpecificPrompts(visual.conv1.weight.shape[0], dim)

    def _class_heads(self, dim: int) -> None:
        """M2-CLIP's heads over a fixed list of classes; captions have none."""
        part = self.recipe.loss
        self.words = label_words(self.labels, self.recipe.text.template)
        if not self.labels:
            return
        if part.vc:
            visual = require_vit(self.clip, "the VC head")
            classifier = nn.Linear(visual.conv1.weight.shape[0], len(self.labels))
            nn.init.normal_(classifier.weight, std=0.02)
            self.new["classifier"] = nn.Sequential(nn.Dropout(0.5), classifier)
        if part.cmlm:
            if self._text_width() != dim:
                raise ModelError(
                    f"CMLM needs text as wide as frame vectors, not {self._text_width()} and {dim}; set loss.cmlm to 0"
                )
            self.new["masked_words"] = MaskedWordHead(self.clip, len(self.words) + 1, self.recipe.text.hidden)

    def _train_backbone(self) -> None:
        if self.recipe.train_image:
            self.clip.visual.requires_grad_(True)
            if self.recipe.tower.kind == "patch3d":
                self.clip.visual.conv1.requires_grad_(False)  # replaced by the 3-D patch
        if self.recipe.train_text:
            parts = text_parts(self.clip)
            for part in (parts.token_embedding, parts.transformer, parts.ln_final):
                part.requires_grad_(True)
            parts.positional_embedding.requires_grad_(True)
            if isinstance(parts.text_projection, (nn.Parameter, nn.Module)):
                parts.text_projection.requires_grad_(True)
        if self.recipe.train_scale and not self.recipe.loss.temperature:
            self.clip.logit_scale.requires_grad_(True)

    def _text_width(self) -> int:
        return int(text_parts(self.clip).ln_final.weight.shape[0])

    @property
    def device(self) -> torch.device:
        return self.clip.logit_scale.device

    @property
    def scale(self) -> Tensor:
        """What cosines are multiplied by."""
        if self.recipe.loss.temperature:
            return torch.tensor(1 / self.recipe.loss.temperature, device=self.device)
        return self.clip.logit_scale.exp()

    def after_step(self) -> None:
        """A scale that trains stays at or under 100 (CLIP4Clip). Clamped here, where it starts it can learn."""
        if self.clip.logit_scale.requires_grad:
            with torch.no_grad():
                self.clip.logit_scale.clamp_(max=math.log(100))

    def embed_video(self, video: Tensor, mask: Tensor) -> VideoSide:
        """Frame vectors (B, T, D) or uint8 frames (B, T, S, S, 3), mask (B, T) -> vectors that are not normalised."""
        cls = patches = None
        if video.dim() == 5:
            seen = self.see(video, mask)
            video, cls, patches = seen.features, seen.cls, seen.patches
        frames = self.new["temporal"](video, mask)
        return VideoSide(
            pool(frames, mask, self.recipe.similarity.normalise_frames), frames, mask, cls, patches
        )

    def see(self, video: Tensor, mask: Tensor | None = None) -> Frames:
        """What the image side makes of raw frames (B, T, S, S, 3) uint8; cls and patches only where it must run its
        own way through the ViT. mask (B, T) of real frames, which do not see the others; without, all are."""
        pixels = video.permute(0, 1, 4, 2, 3).float() / 255
        shape = (1, 1, 3, 1, 1)
        pixels = (pixels - pixels.new_tensor(self.mean).view(shape)) / pixels.new_tensor(self.std).view(shape)
        if self.recipe.tower.kind == "clip" and self.recipe.similarity.kind != "video-prompts":
            return Frames(
                self.clip.encode_image(pixels.flatten(0, 1)).unflatten(0, pixels.shape[:2]), None, None
            )
        found: Frames = self.new["tower"](self.clip.visual, pixels, mask)
        return found

    def embed_text(self, texts: Sequence[str]) -> Tensor:
        """Sentences as they are to be read, templates already filled -> (N, D), not normalised.

        Where nothing of the text's side trains, `kept_texts` spares reading a sentence twice.
        """
        kept = self.kept_texts
        if kept is None or self.recipe.train_text or "prompts" in self.new or "text" in self.new:
            return self._read(texts)[0]
        new = [text for text in dict.fromkeys(texts) if text not in kept]
        with torch.inference_mode(False), torch.no_grad():  # kept for training, too
            for begin in range(0, len(new), 256):
                some = new[begin : begin + 256]
                kept.update(zip(some, self._read(some)[0], strict=True))
            return torch.stack([kept[text] for text in texts])

    def _read(self, texts: Sequence[str]) -> tuple[Tensor, Tensor | None]:
        ids = self.tokenizer(list(texts)).to(self.device)
        if "prompts" in self.new:
            embedded, eot = self.new["prompts"](ids, text_parts(self.clip).token_embedding)
            whole = "masked_words" in self.new  # they ask every token
            return read(self.clip, embedded, eot) if whole else (read_short(self.clip, embedded, eot), None)
        if "text" not in self.new:
            if not reads_left_to_right(self.clip):
                return self.clip.encode_text(ids), None
            return read_short(self.clip, text_parts(self.clip).token_embedding(ids), ids.argmax(1)), None
        adapters: Any = self.new["text"]
        return read(self.clip, text_parts(self.clip).token_embedding(ids), ids.argmax(1), adapters)

    def logits(self, video: VideoSide, text: Tensor) -> Tensor:
        """(B, K): scaled cosines, or the scores of the pair transformer."""
        if "tight" in self.new:
            return self.new["tight"](video.frames, video.mask, text)
        if "video_prompts" in self.new:
            if video.patches is None:
                raise ModelError(
                    f"recipe {self.recipe.name} needs the videos' pictures, not stored frame vectors"
                )
            text = self.new["video_prompts"](text, video.patches, video.mask)
        return self.scale * cosine(video.vectors, text)

    def sentences(self, texts: Sequence[str], rng: random.Random) -> list[str]:
        """Training sentences of labels: one template drawn a sample (ActionCLIP), or the recipe's one."""
        if self.recipe.text.kind == "templates":
            return [rng.choice(TEMPLATES).replace("{}", text) for text in texts]
        return [self.recipe.text.template.replace("{}", text) for text in texts]

    def class_sentences(self, labels: Sequence[str]) -> list[list[str]]:
        """Sentences to compare with, a list for each template, for evaluation and search."""
        templates = TEMPLATES if self.recipe.text.kind == "templates" else (self.recipe.text.template,)
        return [[fill([template], label)[0] for label in labels] for template in templates]

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """The weighted losses of a batch by name; their sum is to be minimised."""
        video = self.embed_video(batch.video, batch.mask)
        if batch.labels is None:
            logits = self.logits(video, self.embed_text(batch.texts))
            return {"contrastive": self._contrastive(logits, batch.match)}
        return self._with_classes(video, batch, batch.labels)

    def _contrastive(self, logits: Tensor, match: Tensor) -> Tensor:
        part = self.recipe.loss
        if part.kind == "kl":
            return losses.soft_target_kl(logits, match)
        return losses.nce(logits, match, part.symmetric)

    def _with_classes(self, video: VideoSide, batch: Batch, labels: Tensor) -> dict[str, Tensor]:
        part, rng = self.recipe.loss, random.Random(batch.seed)  # noqa: S311
        found: dict[str, Tensor] = {}
        all_classes = None
        if part.kind == "nce" or part.cmc:
            all_classes = self.logits(video, self.embed_text(self.sentences(self.labels, rng)))
        if part.kind == "nce" and all_classes is not None:
            found["contrastive"] = part.contrastive * losses.classification(
                all_classes, labels, part.smoothing
            )
        else:
            texts, targets, asked = self.sentences(batch.texts, rng), None, "masked_words" in self.new
            if asked:
                masked = [mask_words(text, self.words, self.tokenizer, rng) for text in texts]
                texts, targets = (
                    [text for text, _ in masked],
                    torch.tensor([t for _, t in masked], device=self.device),
                )
            vectors, tokens = self._read(texts)
            found["contrastive"] = part.contrastive * self._contrastive(
                self.logits(video, vectors), batch.match
            )
            if targets is not None and tokens is not None:
                guessed = self.new["masked_words"](tokens, video.frames, video.mask)
                found["cmlm"] = part.cmlm * losses.masked_words(guessed, targets)
        if part.cmc and all_classes is not None:
            found["cmc"] = part.cmc * losses.classification(all_classes, labels)
        if "classifier" in self.new and video.cls is not None:
            pooled = self.clip.visual.ln_post(pool(video.cls, video.mask, normalise_frames=False))
            found["vc"] = part.vc * losses.classification(self.new["classifier"](pooled), labels)
        return found

    def trained(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Named parameters that train, in a fixed order: what a checkpoint holds."""
        return ((name, p) for name, p in self.named_parameters() if p.requires_grad)

    def groups(self) -> list[dict[str, Any]]:
        """AdamW groups: CLIP's own weights at their small rate, new parts; no decay for biases, norms, positions."""
        part = self.recipe.optimiser
        groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
        for name, parameter in self.trained():
            decays = parameter.dim() > 1 and "position" not in name
            groups.setdefault((name.startswith("clip."), decays), []).append(parameter)
        return [
            {
                "params": members,
                "lr": part.backbone_lr if own else part.lr,
                "weight_decay": part.weight_decay if decays else 0.0,
            }
            for (own, decays), members in groups.items()
        ]
