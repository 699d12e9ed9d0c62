"""Vision towers that look across frames: they run an open_clip ViT's own blocks with something added in between.

A tower holds only what it adds. The ViT is handed to `forward`, is not changed, and stays usable alone.
Input (B, T, 3, H, W) normalised pixels and a mask (B, T) of real frames; output `Frames`. Where frames meet, those that
pad a video count as those beyond its end: a video's vectors do not depend on what it is batched with.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from vsearch.errors import ModelError


@dataclass(frozen=True)
class Frames:
    """features (B, T, D) in the joint space; cls (B, T, W) and patches (B, T, N, W) of the last layer, where known."""

    features: Tensor
    cls: Tensor | None
    patches: Tensor | None


class FrameTower(nn.Module):
    """CLIP frame by frame. The other towers override `embed` or `block`."""

    def forward(self, visual: Any, video: Tensor, mask: Tensor | None = None) -> Frames:
        """mask None: all frames are real."""
        batch, frames = video.shape[:2]
        mask = torch.ones(batch, frames, dtype=torch.bool, device=video.device) if mask is None else mask
        x = self.embed(visual, video, mask)  # (B*T, N, W)
        cls = visual.class_embedding.to(x.dtype).expand(len(x), 1, -1)
        x = visual.ln_pre(torch.cat([cls, x], dim=1) + visual.positional_embedding.to(x.dtype))
        for layer, block in enumerate(visual.transformer.resblocks):
            x = self.block(layer, block, x, mask)
        first = visual.ln_post(x[:, 0])
        features = first if visual.proj is None else first @ visual.proj
        shaped = x.unflatten(0, (batch, frames))
        return Frames(features.unflatten(0, (batch, frames)), shaped[:, :, 0], shaped[:, :, 1:])

    def embed(self, visual: Any, video: Tensor, mask: Tensor) -> Tensor:
        """Patches without class token and positions, (B*T, N, W)."""
        return visual.conv1(video.flatten(0, 1)).flatten(2).transpose(1, 2)

    def block(self, layer: int, block: Any, x: Tensor, mask: Tensor) -> Tensor:
        """One layer over (B*T, N+1, W)."""
        return block(x)


class CrossFrameTower(FrameTower):
    """Cross-frame communication (X-CLIP, 3.2): every frame sends a message, messages attend to each other, and
    a frame's tokens attend to its message. 2,954,496 parameters a layer at width 768."""

    def __init__(self, width: int, layers: int, heads: int) -> None:
        super().__init__()
        self.message = nn.ModuleList(nn.Linear(width, width) for _ in range(layers))
        self.ln = nn.ModuleList(nn.LayerNorm(width) for _ in range(layers))
        self.attn = nn.ModuleList(
            nn.MultiheadAttention(width, heads, batch_first=True) for _ in range(layers)
        )

    def block(self, layer: int, block: Any, x: Tensor, mask: Tensor) -> Tensor:
        messages = self.message[layer](x[:, 0]).unflatten(0, mask.shape)  # (B, T, W)
        h = self.ln[layer](messages)
        messages = messages + self.attn[layer](h, h, h, key_padding_mask=~mask, need_weights=False)[0]
        z = torch.cat([x, messages.flatten(0, 1).unsqueeze(1)], dim=1)  # (B*T, N+2, W)
        z = (z + block.ls_1(self.attend(block, block.ln_1(z))))[:, :-1]
        return z + block.ls_2(block.mlp(block.ln_2(z)))

    def attend(self, block: Any, z: Tensor) -> Tensor:
        """CLIP's own attention over the tokens and the message, which stands last."""
        return block.attention(z)


class TedTower(FrameTower):
    """Temporal enhancement and difference adapters in every layer (M2-CLIP, TED-adapter).

    `before_attention` and `before_mlp` say where; the released K400 model has them before the MLP only.
    """

    def __init__(
        self,
        width: int,
        layers: int,
        hidden: int = 384,
        before_attention: bool = False,
        before_mlp: bool = True,
    ) -> None:
        super().__init__()
        self.attention_adapters = nn.ModuleList(
            TedAdapter(width, hidden) for _ in range(layers if before_attention else 0)
        )
        self.mlp_adapters = nn.ModuleList(
            TedAdapter(width, hidden) for _ in range(layers if before_mlp else 0)
        )

    def block(self, layer: int, block: Any, x: Tensor, mask: Tensor) -> Tensor:
        if len(self.attention_adapters):
            x = self.attention_adapters[layer](x, mask)
        x = x + block.ls_1(block.attention(block.ln_1(x)))
        if len(self.mlp_adapters):
            x = self.mlp_adapters[layer](x, mask)
        return x + block.ls_2(block.mlp(block.ln_2(x)))


class TedAdapter(nn.Module):
    """X + temporal branch + [0; difference branch]; no activation; zero convolutions, so identity at first."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.down = nn.Linear(width, hidden)
        self.over_time = nn.Conv1d(hidden, hidden, kernel_size=3, padding=1, groups=hidden)
        self.up = nn.Linear(hidden, width)
        self.difference_down = nn.Linear(width, hidden)
        self.over_space = nn.Conv2d(hidden, hidden, kernel_size=3, padding=1, groups=hidden)
        self.difference_up = nn.Linear(hidden, width)
        for conv in (self.over_time, self.over_space):
            nn.init.zeros_(conv.weight)
        for part in self.children():
            nn.init.zeros_(part.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """(B*T, N+1, W) -> the same shape, never in place."""
        video = x.unflatten(0, mask.shape)  # (B, T, N+1, W)
        return x + (self._temporal(video, mask) + self._difference(video)).flatten(0, 1)

    def _temporal(self, video: Tensor, mask: Tensor) -> Tensor:
        batch, _, tokens, _ = video.shape
        h = self.down(video) * mask[:, :, None, None]
        h = h.permute(0, 2, 3, 1).flatten(0, 1)  # (B*(N+1), hidden, T)
        h = self.over_time(h).unflatten(0, (batch, tokens)).permute(0, 3, 1, 2)
        return self.up(h)

    def _difference(self, video: Tensor) -> Tensor:
        patches = video[:, :, 1:]
        previous = torch.cat([patches[:, :1], patches[:, :-1]], dim=1)
        side = round(patches.shape[2] ** 0.5)
        h = self.difference_down(patches - previous).flatten(0, 1).transpose(1, 2)  # (B*T, hidden, N)
        h = self.over_space(h.unflatten(2, (side, side))).flatten(2).transpose(1, 2)
        changed = self.difference_up(h).unflatten(0, video.shape[:2])
        return nn.functional.pad(changed, (0, 0, 1, 0))  # a zero row for the class token


class ShiftTower(FrameTower):
    """Channels of patch tokens move one frame back and forth before each block (ActionCLIP in-network Shift).

    1/8 of the channels each way; the class token stays; no parameters.
    """

    def block(self, layer: int, block: Any, x: Tensor, mask: Tensor) -> Tensor:
        video = x.unflatten(0, mask.shape)
        patches = video[:, :, 1:]
        real = patches * mask[:, :, None, None]
        fold = x.shape[-1] // 8
        following = nn.functional.pad(real[:, 1:, :, :fold], (0, 0, 0, 0, 0, 1))
        previous = nn.functional.pad(real[:, :-1, :, fold : 2 * fold], (0, 0, 0, 0, 1, 0))
        shifted = torch.cat([following, previous, patches[..., 2 * fold :]], dim=-1)
        return block(torch.cat([video[:, :, :1], shifted], dim=2).flatten(0, 1))


class Patch3dTower(FrameTower):
    """Patches of three frames (CLIP4Clip 3-D linear). The middle slice starts as CLIP's, the others as zero."""

    def __init__(self, patch_weight: Tensor) -> None:
        super().__init__()
        width, colours, height, _ = patch_weight.shape
        self.conv = nn.Conv3d(
            colours, width, (3, height, height), (1, height, height), (1, 0, 0), bias=False,
            device=patch_weight.device,
        )  # fmt: skip
        with torch.no_grad():
            self.conv.weight.zero_()
            self.conv.weight[:, :, 1] = patch_weight

    def embed(self, visual: Any, video: Tensor, mask: Tensor) -> Tensor:
        x = self.conv((video * mask[:, :, None, None, None]).transpose(1, 2))  # (B, W, T, h, w)
        return x.flatten(3).permute(0, 2, 3, 1).flatten(0, 1)


def build_tower(kind: str, clip: Any, **options: Any) -> FrameTower:
    """The tower of that name on an open_clip model. Raises ModelError where that model has no plain ViT."""
    if kind == "clip":
        return FrameTower()
    visual = require_vit(clip, f"the {kind} tower")
    width, layers = visual.conv1.weight.shape[0], len(visual.transformer.resblocks)
    if kind == "cross-frame":
        return CrossFrameTower(width, layers, visual.transformer.resblocks[0].attn.num_heads)
    if kind == "ted":
        return TedTower(width, layers, **options)
    if kind == "shift":
        return ShiftTower()
    if kind == "patch3d":
        return Patch3dTower(visual.conv1.weight)
    raise ModelError(f"unknown tower {kind!r}; known: clip, cross-frame, ted, shift, patch3d")


def require_vit(clip: Any, what: str) -> Any:
    """The vision tower when it is a plain open_clip ViT with a class token. Raises ModelError otherwise."""
    from open_clip.transformer import VisionTransformer

    visual = clip.visual
    plain = isinstance(visual, VisionTransformer) and visual.pool_type == "tok" and visual.attn_pool is None
    if not plain or any(not hasattr(block, "ls_1") for block in visual.transformer.resblocks):
        raise ModelError(
            f"{what} needs a vision transformer with a class token, and this model has none "
            "(the built-in mini is a CNN); use a model such as ViT-B-32 or a recipe without in-network parts"
        )
    return visual
