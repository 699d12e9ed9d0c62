"""Backbones: frozen image-text pairs of towers, loaded through open_clip.

A backbone turns sampled frames and sentences into vectors of one space. Its weights are never changed
by anything in here, which is why its frame vectors can be kept for ever (see `library/frames.py`).

A name is one of
    mini                       the built-in model (no download, CPU friendly)
    ViT-B-32:openai            any open_clip architecture with a pretrained tag (downloaded once)
    ViT-B-32:/path/to/file     the same with weights from a local file
    hf-hub:ORG/REPO            a model on the Hugging Face hub that carries an open_clip config
    /path/to/folder            a folder holding open_clip_config.json and its weights
"""

from __future__ import annotations

import copy
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from vsearch.errors import ModelError
from vsearch.models.preprocess import Preprocess, identity_of, preprocess_of
from vsearch.models.runtime import Towers, enough_memory, low_precision, on_device

if TYPE_CHECKING:
    import torch

MINI_DIR = Path(__file__).parent / "mini"


class Backbone:
    """A backbone on a device. `identity` = architecture + weights hash + preprocessing.

    On the CPU its towers run by ONNX Runtime where they are exported; the torch model is then loaded by whoever asks
    for it (`clip`), to train on it or to read its layers.
    """

    frames_together = 1  # how many frames of a video its image side sees at once
    _load: Callable[[], Backbone]  # where `exported` made it

    def __init__(
        self,
        name: str,
        clip: torch.nn.Module,
        tokenizer: Callable[..., torch.Tensor],
        pre: Preprocess,
        device: str,
        half: str = "bfloat16",
        sources: Sequence[Path] = (),
    ) -> None:
        """`half`: what the image side computes in on a GPU that has it, 'bfloat16' (range) or 'float16' (digits).
        `sources`: files on this machine that it was loaded from."""
        self.name = name
        self.preprocess = pre
        self.device = device
        self.identity = identity_of(name, {k: v.cpu().numpy() for k, v in clip.state_dict().items()}, pre)
        self._towers: Towers | None = None
        self._half = half
        self._sources = sources
        self._take(clip, tokenizer)
        self.dim = int(self.encode_texts(["a"]).shape[1])

    @classmethod
    def exported(cls, name: str, towers: Towers, load: Callable[[], Backbone]) -> Backbone:
        """The backbone of these towers, on the CPU. `load` gives it with its torch model."""
        backbone = cls.__new__(cls)
        backbone.name, backbone.preprocess, backbone.device = name, towers.preprocess, "cpu"
        backbone.identity, backbone.dim = towers.identity, towers.dim
        backbone._towers, backbone._load, backbone._clip, backbone._low = towers, load, None, None
        return backbone

    def _take(self, clip: torch.nn.Module, tokenizer: Callable[..., torch.Tensor]) -> None:
        import torch

        self._clip: torch.nn.Module | None = clip.eval().requires_grad_(False).to(self.device)
        self._tokenizer = tokenizer
        self._low = low_precision([self.device], self._half)
        self._arranged: torch.nn.Module | None = None  # the image side, arranged for a GPU
        # (x / 255 - mean) / std as one multiply-add on raw bytes, shape (1, 3, 1, 1)
        std = torch.tensor(self.preprocess.std).view(1, 3, 1, 1)
        self._scale = (1 / (255 * std)).to(self.device)
        self._shift = (-torch.tensor(self.preprocess.mean).view(1, 3, 1, 1) / std).to(self.device)

    @property
    def clip(self) -> torch.nn.Module:
        """The torch model. Raises ModelError when it can no longer be loaded."""
        if self._clip is None:
            loaded = self._load()
            if loaded.identity != self.identity:
                raise ModelError(
                    f"model {self.name!r} is no longer what it was: {loaded.identity}, not {self.identity}"
                )
            self._half, self._sources = loaded._half, loaded._sources
            self._take(loaded.clip, loaded.tokenizer)
        assert self._clip is not None
        return self._clip

    @property
    def tokenizer(self) -> Callable[..., torch.Tensor]:
        """N sentences -> (N, L) token numbers."""
        _ = self.clip
        return self._tokenizer

    def encode_frames(self, frames: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """(N, S, S, 3) uint8 RGB, already of the preprocessing's size -> (N, D) float32, not normalised."""
        if self._towers is not None:
            with self._or_torch():
                return self._towers.encode_frames(frames)
        import torch

        with torch.inference_mode():
            return self.encode_pixels(on_device(frames, self.device)).cpu().numpy()

    def encode_pixels(self, pixels: torch.Tensor) -> torch.Tensor:
        """The same by torch for frames on the device, with vectors that stay there. In inference mode; waits for
        nothing."""
        import torch

        clip = self.clip
        image_side: Any = self._arranged or clip
        with self._precision():
            # A permuted NHWC array is channels-last in memory: the layout convolutions like best, at no copy.
            x = torch.addcmul(self._shift, pixels.permute(0, 3, 1, 2).float(), self._scale)  # (N, 3, S, S)
            vectors: torch.Tensor = image_side.encode_image(x).float()
            return vectors

    def encode_texts(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """N sentences -> (N, D) float32, not normalised. Sentences over the context length are cut.

        In float32 on every device: they are few, and their vectors are kept for machines of another kind.
        """
        # Whoever has the torch model may have trained its text side.
        if self._clip is None and self._towers is not None and self._towers.reads_texts:
            with self._or_torch():
                return self._towers.encode_texts(texts)
        import torch

        with torch.inference_mode():
            tokens = self.tokenizer(list(texts)).to(self.device)  # (N, 77)
            return self.clip.encode_text(tokens).float().cpu().numpy()  # type: ignore[operator]

    @contextmanager
    def _or_torch(self) -> Iterator[None]:
        """Towers that are damaged are done without from now on: torch has the weights, or says what is wrong."""
        try:
            yield
        except ModelError:
            self._towers = None

    def arrange(self) -> None:
        """Before encoding many frames: have the towers exported (CPU), or make a faster arrangement of the image side
        (GPU). It takes as long as some dozens of frames, so single pictures do without."""
        if self._low is not None:
            from vsearch.models.runtime import for_gpu

            self._arranged = self._arranged or for_gpu(self.clip, self._low)
        elif self._towers is None and self.device == "cpu":
            from vsearch.models.runtime import keep_towers, write_towers

            def write(folder: Path) -> None:
                write_towers(folder, self.clip, self.tokenizer, self.preprocess, self.identity)

            self._towers = keep_towers(self.identity, self._sources, write)

    def replicas(self, devices: Sequence[str]) -> list[Backbone]:
        """This one, which is on the first of `devices`, and a copy of it for each of the others.

        All in the precision that the least of the devices has, so a vector does not depend on where it was made.
        """
        if len(devices) > 1:
            self._low, self._arranged = low_precision(devices, self._half), None
        return [self, *(self._on(device) for device in devices[1:])]

    def _on(self, device: str) -> Backbone:
        import torch

        twin = copy.deepcopy(self, {id(self.tokenizer): self.tokenizer})
        twin.device = device
        with enough_memory(device, "this model"):
            for name, part in list(vars(twin).items()):
                if isinstance(part, (torch.nn.Module, torch.Tensor)):
                    setattr(twin, name, part.to(device))
        return twin

    def _precision(self) -> AbstractContextManager[Any]:
        import torch

        if self._low is None:
            return nullcontext()
        # Nothing to keep: weights without gradients are not cached, and a captured graph must not refer to such a cache.
        return torch.autocast(self.device.partition(":")[0], dtype=self._low, cache_enabled=False)


def load_backbone(name: str = "mini", device: str = "auto", identity: str | None = None) -> Backbone:
    """Load the backbone of that name (see the module's text), or make ready for it: on the CPU without torch, where its
    towers are exported. `identity`: which one it is, where that is known.

    Raises ModelError: unknown name, missing or unfitting weights, no such device, no network for a download.
    """
    device = resolve_device(device)
    if device == "cpu" and (towers := exported_towers(name, identity)):
        return Backbone.exported(name, towers, lambda: load_weights(name, "cpu"))
    return load_weights(name, device)


def exported_towers(name: str, identity: str | None = None) -> Towers | None:
    """The towers of the built-in model, or those kept of a model of this identity."""
    if name == "mini":
        return Towers(MINI_DIR)
    if identity is None:
        return None
    from vsearch.models.runtime import kept_towers

    return kept_towers(identity)


def load_weights(name: str, device: str) -> Backbone:
    """As `load_backbone`, with torch and open_clip whether its towers are exported or not."""
    with enough_memory(device, "this model"):
        if name == "mini":
            return load_mini(device=device)
        from vsearch.models.published import load_published

        found = load_published(name)
        return Backbone(name, found.clip, found.tokenizer, found.preprocess, device, sources=found.sources)


def outline(name: str) -> torch.nn.Module:
    """The model of that name (see the module's text) as it is built, without values in its tensors: on torch's device
    'meta', in a second, where its weights would take several. Raises ModelError as `load_backbone` does."""
    import torch

    try:
        if name == "mini":
            import open_clip

            with torch.device("meta"):
                return open_clip.model.CLIP(**json.loads((MINI_DIR / "config.json").read_text())["model_cfg"])
        from vsearch.models.published import outline_of

        return outline_of(name)
    except Exception:  # what cannot be built so is loaded, or says why it cannot be
        with torch.device("cpu"):
            return load_weights(name, "cpu").clip.to("meta")


def resolve_device(device: str) -> str:
    """'auto' | 'cpu' | 'cuda' | 'cuda:N' | 'mps' -> a torch device that is there; auto is the first CUDA GPU, else the CPU.

    Raises ModelError.
    """
    if "," in device:
        raise ModelError(f"device {device!r}: only `vsearch index` works on several devices; give one")
    if device == "cpu" or (device == "auto" and not _may_have_gpu()):
        return "cpu"
    import torch

    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device == "mps":
        if not torch.backends.mps.is_available():
            raise ModelError("no GPU of Apple's is available; use --device cpu or auto")
        return device
    kind, _, number = device.partition(":")
    if kind != "cuda" or (device != "cuda" and not number.isdecimal()):
        raise ModelError(f"unknown device {device!r}; use auto, cpu, cuda, cuda:N or mps")
    if not torch.cuda.is_available():
        raise ModelError("no CUDA device is available; use --device cpu or auto")
    if number and int(number) >= torch.cuda.device_count():
        raise ModelError(f"there is no {device}: this machine has {torch.cuda.device_count()} CUDA devices")
    return f"cuda:{int(number)}" if number else device


def _may_have_gpu() -> bool:
    """Whether asking torch is worth the seconds that it takes to import: a driver of a GPU is there, or torch is."""
    drivers = (
        "/dev/nvidiactl",
        "/dev/dxg",
        "/dev/kfd",
        "/dev/nvmap",
    )  # NVIDIA, its cards in WSL, AMD, Jetson
    return "torch" in sys.modules or any(os.path.exists(path) for path in drivers)


def resolve_devices(devices: str) -> list[str]:
    """'auto' or one device as `resolve_device` takes it, or several GPUs: 'cuda:0,cuda:1'. Raises ModelError."""
    found = [resolve_device(device.strip()) for device in devices.split(",")]
    if len(found) > 1:
        if not all(device.startswith("cuda:") for device in found):
            raise ModelError(
                f"of several devices each must be a GPU by its number, as in cuda:0,cuda:1, not {devices}"
            )
        if twice := next((device for device in found if found.count(device) > 1), None):
            raise ModelError(f"{twice} is named twice; give each device once")
    return found


def list_backbones() -> list[tuple[str, str]]:
    """(name, note) of everything `load_backbone` takes by name, the built-in model first."""
    from vsearch.models.published import list_published

    named = [(f"{arch}:{tag}", "open_clip, downloaded on first use") for arch, tag in list_published()]
    return [("mini", "built in, no download"), *named]


def mini_calibration() -> dict[str, Any] | None:
    """Score quantiles of related and unrelated text-moment pairs that travel with `mini`."""
    path = MINI_DIR / "calibration.json"
    return json.loads(path.read_text()) if path.is_file() else None


def load_mini(folder: Path = MINI_DIR, device: str = "cpu") -> Backbone:
    """The built-in model, or another build of it: `config.json` and `weights.safetensors` in `folder`."""
    import open_clip

    from vsearch.models.mini.head import PictureHead
    from vsearch.models.runtime import load_compact

    config = json.loads((folder / "config.json").read_text())
    clip = open_clip.model.CLIP(**config["model_cfg"])
    features = clip.visual.trunk.num_features
    clip.visual.head = PictureHead(features, config["model_cfg"]["embed_dim"], **config["head"])
    clip.load_state_dict(load_compact(folder / "weights.safetensors"), strict=True)
    # Its layers are bounded (ReLU6), so float16 holds them, and keeps cosines with float32 over .9999; bfloat16, .993.
    return Backbone(
        "mini", clip, open_clip.SimpleTokenizer(), preprocess_of(config["preprocess_cfg"]), device, "float16"
    )
