"""Prompts: what is put around a sentence or a class name before the text tower reads it.

Three kinds: continuous vectors learned in the token space (Efficient-Prompt), hand-written templates whose
probabilities are averaged (ActionCLIP), and text vectors bent by the video they are compared with (X-CLIP).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from vsearch.errors import ModelError
from vsearch.models.recipes import heads_for, mlp

# Three shapes, as in ActionCLIP section 3.2: words before the label, around it, after it; one is the bare label.
TEMPLATES = (
    "{}",
    "a video of {}",
    "a clip that shows {}",
    "this is {}",
    "people doing {}",
    "someone is {}",
    "the action of {}",
    "footage of {}",
    "a person {} in a video",
    "the activity {} on camera",
    "a recording of {} taking place",
    "look, {} is going on",
    "{}, a video",
    "{}, an action",
    "{} can be seen here",
    "{} is what happens",
)


class ContinuousPrompts(nn.Module):
    """Learned vectors before and after the sentence, in the text tower's token space (Efficient-Prompt, 3.1).

    Tables of `prefix` and `suffix` rows of the text width, N(0, 0.01^2). With `released_layout` there is one
    table of `context` rows addressed by absolute row, as in the authors' code: there the vectors after a name
    shift with its length.
    """

    def __init__(
        self, width: int, prefix: int = 16, suffix: int = 16, released_layout: bool = False, context: int = 77
    ) -> None:
        super().__init__()
        if prefix < 0 or suffix < 0 or prefix + suffix + 3 > context:
            raise ModelError(
                f"{prefix} + {suffix} prompt vectors leave no room for a sentence in {context} tokens; use fewer"
            )
        self.prefix, self.suffix, self.context, self.released_layout = (
            prefix,
            suffix,
            context,
            released_layout,
        )
        rows = context if released_layout else prefix + suffix
        self.table = nn.Parameter(torch.randn(rows, width) * 0.01)

    def forward(self, tokens: Tensor, embedding: nn.Embedding) -> tuple[Tensor, Tensor]:
        """(B, context) token ids of SOT, words, EOT -> embeddings (B, context, W) and the row of EOT (B,).

        Words beyond context - 2 - prefix - suffix are cut, EOT is kept.
        """
        eot = tokens.argmax(dim=1)  # EOT has the largest id
        words = (eot - 1).clamp(max=self.context - 2 - self.prefix - self.suffix).unsqueeze(1)  # (B, 1)
        row = torch.arange(self.context, device=tokens.device).expand(len(tokens), -1)  # (B, context)
        after = self.prefix + words + 1  # first row behind the words
        end = after + self.suffix
        # Each row points into the bank [token embeddings | learned table].
        source = row.clone()
        in_words = (row > self.prefix) & (row < after)
        source = torch.where(in_words, row - self.prefix, source)
        source = torch.where(row == end, eot.unsqueeze(1), source)
        # What follows EOT cannot reach it through the causal mask; the row of EOT serves as filler.
        source = torch.where(row > end, eot.unsqueeze(1), source)
        before, behind = (row > 0) & (row <= self.prefix), (row >= after) & (row < end)
        if self.released_layout:
            source = torch.where(before | behind, self.context + row, source)
        else:
            source = torch.where(before, self.context + row - 1, source)
            source = torch.where(behind, self.context + self.prefix + row - after, source)
        embedded = embedding(tokens)
        bank = torch.cat([embedded, self.table.to(embedded.dtype).expand(len(tokens), -1, -1)], dim=1)
        picked = bank.gather(1, source.unsqueeze(-1).expand(-1, -1, bank.shape[-1]))
        return picked, end.squeeze(1)


class VideoSpecificPrompts(nn.Module):
    """Text vectors that look at the video's patches (X-CLIP, section 3.4). 6,697,984 parameters for B/32, B/16.

    patch_width: width of the vision tower; dim: joint embedding.
    """

    def __init__(self, patch_width: int, dim: int, layers: int = 2, alpha: float = 0.1) -> None:
        super().__init__()
        self.ln_patches = nn.LayerNorm(patch_width)
        self.proj = nn.Parameter(torch.randn(patch_width, dim))
        self.ln_video = nn.LayerNorm(dim)
        self.layers = nn.ModuleList(_CrossBlock(dim) for _ in range(layers))
        self.alpha = nn.Parameter(torch.full((dim,), alpha))

    def forward(self, text: Tensor, patches: Tensor, mask: Tensor) -> Tensor:
        """text (K, D), patches (B, T, N, W) of the last layer, mask (B, T) of real frames -> (B, K, D), a text vector
        per video."""
        share = mask / mask.sum(dim=1, keepdim=True)  # of the mean over real frames
        seen = torch.einsum("bt,btnd->bnd", share.to(patches.dtype), self.ln_patches(patches) @ self.proj)
        video = self.ln_video(seen)  # (B, N, D)
        start = text.expand(len(video), -1, -1)
        bent = start
        for layer in self.layers:
            bent = layer(bent, video)
        return start + self.alpha * bent


class _CrossBlock(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.heads = heads_for(dim)
        self.ln_1 = nn.LayerNorm(dim)
        self.q = nn.Linear(dim, dim, bias=False)
        self.k = nn.Linear(dim, dim, bias=False)
        self.v = nn.Linear(dim, dim, bias=False)
        self.out = nn.Linear(dim, dim)
        self.ln_2 = nn.LayerNorm(dim)
        self.mlp = mlp(dim)

    def forward(self, text: Tensor, video: Tensor) -> Tensor:
        q, k, v = self.q(self.ln_1(text)), self.k(video), self.v(video)
        split = [
            t.unflatten(-1, (self.heads, -1)).transpose(1, 2) for t in (q, k, v)
        ]  # (B, heads, ., D/heads)
        mixed = nn.functional.scaled_dot_product_attention(*split).transpose(1, 2).flatten(2)
        text = text + self.out(mixed)
        return text + self.mlp(self.ln_2(text))


def fill(templates: Sequence[str], label: str) -> list[str]:
    """The label in each template. Braces in a label are text, not places."""
    return [template.replace("{}", label) for template in templates]


def template_probabilities(video: Tensor, texts: Tensor, scale: float = 100.0) -> Tensor:
    """Softmax over classes for each template, then the mean over templates (ActionCLIP, section 3.2).

    video (B, D), texts (templates, C, D), both unit length -> (B, C). Not the same as averaging text vectors.
    """
    logits = scale * torch.einsum("bd,pcd->pbc", video, texts)
    return logits.softmax(dim=-1).mean(dim=0)
