"""What a training run is asked to do. Everything here decides the weights, and is in the run card."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import msgspec


@dataclass(frozen=True, kw_only=True)
class Settings:
    """loss: of the registry `losses`, loss_settings: its parameters. batch_size: pairs of a step, of all processes.
    chunk: pairs that go through the model at once, each process (gradient caching); None: its whole share.

    steps: optimizer steps of the whole run. lr: the peak, reached after `warmup` steps, then `schedule`.
    layer_decay: each layer's rate is that of the one above it times this. clip_norm: of the gradient; None: no limit.
    ema: decay of the averaged weights, which are then what is saved and measured. precision: f32, bf16 or f16.
    teacher: the model that a loss learns from, by name. weights: source of a caption -> how often it is drawn, of those
    an image has; {} is the caption in use alone.
    prefixes: source -> words in front of its captions (prefix conditioning). area: the least part of a picture that a
    crop shows (1: the picture as the model sees it when it is used).
    """

    loss: str = "clip"
    loss_settings: dict[str, str] = field(default_factory=dict)
    batch_size: int = 256
    chunk: int | None = None
    steps: int = 1000
    optimizer: Literal["adamw", "lion"] = "adamw"
    lr: float = 5e-4
    weight_decay: float = 0.2
    betas: tuple[float, float] = (0.9, 0.98)
    epsilon: float = 1e-6
    warmup: int = 0
    schedule: Literal["cosine", "constant", "linear"] = "cosine"
    layer_decay: float = 1.0
    clip_norm: float | None = None
    ema: float | None = None
    precision: Literal["f32", "bf16", "f16"] = "f32"
    lock_image: bool = False
    lock_text: bool = False
    lora_rank: int | None = None
    teacher: str | None = None
    weights: dict[str, float] = field(default_factory=dict)
    prefixes: dict[str, str] = field(default_factory=dict)
    area: float = 0.9
    mirror: bool = False
    seed: int = 0

    def to_json(self) -> dict[str, Any]:
        """As the run card has it."""
        made: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(asdict(self)))
        return made
