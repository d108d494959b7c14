"""The encoder seam: what a model is to the rest of clipkit, whichever backend runs it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from clipkit.errors import UsageError

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image


@dataclass(frozen=True)
class Preprocess:
    """How pixels become the model's input: open_clip's own description, applied by `clipkit.images.transform`.

    size: (height, width) in pixels. resize_mode: `shortest` (short side to size, crop), `squash`, `longest` (pad).
    interpolation: `bicubic` or `bilinear`. mean, std: per RGB channel, on the 0..1 scale. fill: padding, 0..255.
    resize: the short side before the centre crop where that differs from size (as in classification backbones).
    """

    size: tuple[int, int]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    resize_mode: str = "shortest"
    interpolation: str = "bicubic"
    fill: int = 0
    resize: int | None = None


@dataclass(frozen=True)
class Identity:
    """What travels with every feature, score, adapter and export; equal identity means interchangeable vectors.

    name: as a user would ask for it (`lite`, `ViT-B-32:laion2b_s34b_b79k`), without absolute paths.
    weights: sha256 of the weights (hex). activation: `gelu`, `quickgelu`, ... dim: of the joint space.
    """

    name: str
    weights: str
    preprocess: Preprocess
    activation: str
    dim: int
    extra: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def digest(self) -> str:
        """12 hex digits over everything but the name."""
        described = asdict(self)
        del described["name"]
        return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()[:12]

    def __str__(self) -> str:
        return f"{self.name}@{self.digest}"


class Encoder:
    """A model that gives unit image and text features in one space.

    Backends subclass it. All arrays are numpy, f32, C-contiguous; n images or texts, d = `identity.dim`.
    A call may come from several threads at once, up to `lanes` of them. Rows don't depend on their batch neighbours,
    bitwise: a backend that cannot promise this runs one fixed batch shape, padded (torch), or row by row.
    """

    backend: str = ""  # "lite", "open_clip", or what runs an exported model: "onnx", ...
    towers: tuple[str, ...] = ("image", "text")  # which of them it has

    identity: Identity
    logit_scale: float  # already exponentiated: logits = logit_scale * image . text + (logit_bias or 0)
    logit_bias: float | None = None
    context_length: int  # tokens, specials included
    backbone_dim: int | None = None  # width of the image features before the joint projection; None if it has none
    device: str = "cpu"
    precision: str = "f32"  # "f32", "bf16", "f16"
    batch_size: int = 8  # images a call takes at best
    lanes: int = 0  # calls that may run at once; 0 = one per worker thread, each on one core
    notices: Sequence[str] = ()  # what happened that a person should hear of at the end of a run (batches halved)
    few_shot_space: Literal["joint", "backbone"] = "joint"  # whose features a few-shot method does best on
    default_templates: tuple[str, ...] = ("a photo of a {}.",)  # what a label becomes where the user names no template

    @property
    def space(self) -> str:
        """What besides the input decides an output's last bit: part of every cache key. Backends add the library."""
        return f"{self.identity.digest}/{self.backend}/{self.device.split(':')[0]}/{self.precision}"

    def require(self, tower: Literal["image", "text"]) -> None:
        """Raise UsageError where the model lacks a tower: whoever looks up features asks first."""
        if tower not in self.towers:
            asked = "texts" if tower == "text" else "pictures"
            said = f"{self.place} holds the {self.towers[0]} tower alone: it has no features of {asked}"
            raise UsageError(said, "export the model without --tower")

    @property
    def place(self) -> str:
        """What it is called where it is at fault: its name, or the folder that it lies in."""
        return self.identity.name

    def preprocess(self, image: Image.Image) -> np.ndarray:
        """An upright RGB image to one model input, f32 [3, h, w] (or whatever `encode_images` stacks)."""
        raise NotImplementedError

    def encode_images(
        self, batch: np.ndarray | Sequence[np.ndarray], *, backbone: bool = False
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Model inputs to unit features [n, d] and, if asked for, backbone features [n, backbone_dim].

        batch: f32 [n, 3, h, w], or n arrays [3, h, w]: a model that runs row by row need not copy them together.
        """
        raise NotImplementedError

    def encode_texts(self, texts: list[str]) -> np.ndarray:
        """Texts to unit features [n, d]; a text longer than the context is cut, and `count_tokens` tells which."""
        raise NotImplementedError

    def count_tokens(self, texts: list[str]) -> list[int]:
        """Tokens of each text, specials included, before any cut."""
        raise NotImplementedError

    def close(self) -> None:
        """Release the device."""
