"""The flags of `clipkit train`, in groups as options.py has them. None is what was not given: the run decides then."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from typer import Option

from clipkit.errors import UsageError
from clipkit.options import OptionGroup


def parse_weights(text: str) -> dict[str, float]:
    """`original=1,coca=0.5` to {"original": 1.0, "coca": 0.5}: how often a caption of each source is drawn."""
    weights: dict[str, float] = {}
    for part in text.split(","):
        source, equals, number = (piece.strip() for piece in part.rpartition("="))
        try:
            weight = float(number)
        except ValueError:
            weight = -1.0
        if not equals or not source or not 0 <= weight < math.inf:
            raise UsageError(f"--texts takes SOURCE=WEIGHT,..., not {part!r}", "for example: --texts original=1,coca=1")
        if source in weights:
            raise UsageError(f"--texts names {source} twice")
        weights[source] = weight
    if not any(weights.values()):
        raise UsageError("--texts: every weight is 0, so that no caption would ever be drawn")
    return weights


def parse_prefixes(texts: Sequence[str]) -> dict[str, str]:
    """`coca=a caption:` to {"coca": "a caption:"}."""
    prefixes: dict[str, str] = {}
    for text in texts:
        source, equals, words = (piece.strip() for piece in text.partition("="))
        if not (source and equals and words):
            raise UsageError(f"--prefix takes SOURCE=WORDS, not {text!r}", "for example: --prefix 'coca=a caption:'")
        if source in prefixes:
            raise UsageError(f"--prefix names {source} twice")
        prefixes[source] = words
    return prefixes


@dataclass(frozen=True, kw_only=True)
class _Asked(OptionGroup):
    def given(self) -> dict[str, Any]:
        """What was asked for, by the names of the fields."""
        return {name: value for name, value in vars(self).items() if value is not None}


@dataclass(frozen=True, kw_only=True)
class LearningOptions(_Asked):
    """What is minimised, and how; fields as `training.settings.Settings` calls them."""

    title: ClassVar[str] = "Learning"

    loss: Annotated[str | None, Option(metavar="NAME", help="See `clipkit methods losses`. Default: clip.")] = None
    loss_settings: Annotated[
        list[str] | None, Option("--set", metavar="NAME=VALUE", help="A parameter of the loss; may be repeated.")
    ] = None
    steps: Annotated[int | None, Option(min=1, metavar="N", help="Steps of the optimizer in all.")] = None
    epochs: Annotated[
        float | None,
        Option(
            min=0,
            metavar="X",
            help="So often over the data instead. Default: 32, or 5 where the model was trained before; "
            "more of few pairs.",
        ),
    ] = None
    samples: Annotated[int | None, Option(min=1, metavar="N", help="So many pairs seen instead.")] = None
    batch_size: Annotated[
        int | None,
        Option(min=2, metavar="N", help="Pairs of a step, over all processes. Default: 256, or as many as there are."),
    ] = None
    chunk: Annotated[
        int | None,
        Option(min=1, metavar="N", help="So many go through the model at once: the same step in less memory."),
    ] = None
    optimizer: Annotated[Literal["adamw", "lion"] | None, Option(help="Default: adamw.")] = None
    lr: Annotated[
        float | None,
        Option(
            min=0,
            metavar="X",
            help="The highest learning rate. Default: 5e-4; 1e-5 where the model was trained before, 2e-4 with --lora; "
            "a fifth of it for lion.",
        ),
    ] = None
    weight_decay: Annotated[float | None, Option(min=0, metavar="X", help="Default: 0.2; 1 for lion.")] = None
    warmup: Annotated[
        int | None,
        Option(min=0, metavar="N", help="Steps until --lr is reached. Default: a tenth of all, 2,000 at most."),
    ] = None
    schedule: Annotated[
        Literal["cosine", "linear", "constant"] | None, Option(help="How it falls from there. Default: cosine.")
    ] = None
    layer_decay: Annotated[
        float | None, Option(min=0, max=1, metavar="X", help="A layer's rate is that of the one above times this.")
    ] = None
    clip_norm: Annotated[float | None, Option(min=0, metavar="X", help="The largest norm of the gradient.")] = None
    ema: Annotated[
        float | None,
        Option(
            min=0, max=1, metavar="DECAY", help="Save and measure averaged weights: 0.999 is over 1,000 steps or so."
        ),
    ] = None
    precision: Annotated[
        Literal["f32", "bf16", "f16"] | None, Option(help="Of the arithmetic. Default: f32 on cpu, bf16 on a GPU.")
    ] = None
    seed: Annotated[int | None, Option(min=0, metavar="N", help="Of all that is random. Default: 0.")] = None


@dataclass(frozen=True, kw_only=True)
class TrainedOptions(_Asked):
    """What of the model is trained."""

    title: ClassVar[str] = "What is trained"

    lock_image: Annotated[bool, Option("--lock-image", help="The text tower alone: LiT.")] = False
    lock_text: Annotated[bool, Option("--lock-text", help="The image tower alone.")] = False
    lora_rank: Annotated[
        int | None, Option("--lora", min=1, metavar="RANK", help="Low-rank changes of the weights alone: LoRA.")
    ] = None
    teacher: Annotated[
        str | None, Option(metavar="MODEL", help="For losses that learn from another model, by its name.")
    ] = None


@dataclass(frozen=True, kw_only=True)
class PairOptions(_Asked):
    """What a pair is each time it is seen."""

    title: ClassVar[str] = "Captions and pictures"

    weights: Annotated[
        dict[str, float] | None,
        Option(
            "--texts",
            parser=parse_weights,
            metavar="SOURCE=WEIGHT,...",
            help="Draw one of `texts` each time, so often of each source. Default: `text` alone.",
        ),
    ] = None
    prefixes: Annotated[
        list[str] | None,
        Option("--prefix", metavar="SOURCE=WORDS", help="Words in front of captions of a source; may be repeated."),
    ] = None
    area: Annotated[
        float | None,
        Option(min=0.01, max=1, metavar="X", help="The least part of a picture that a crop shows. Default: 0.9."),
    ] = None
    mirror: Annotated[bool, Option("--mirror", help="Mirror every other picture.")] = False

    def given(self) -> dict[str, Any]:
        return super().given() | {"prefixes": parse_prefixes(self.prefixes or [])}


@dataclass(frozen=True, kw_only=True)
class KeepingOptions(_Asked):
    """What is kept of the run, and measured on the way; none of it changes the weights."""

    title: ClassVar[str] = "The run"

    eval: Annotated[
        list[str] | None,
        Option(
            metavar="SOURCE",
            help="Measure on these on the way: top-1 where they have labels, else retrieval; may be repeated. "
            "Default: records of the split val.",
        ),
    ] = None
    eval_every: Annotated[
        int | None, Option(min=1, metavar="N", help="Every so many steps. Default: with each checkpoint.")
    ] = None
    checkpoint_every: Annotated[
        int | None, Option(min=1, metavar="N", help="Steps. Default: a tenth of the run, 1,000 at most.")
    ] = None
    keep: Annotated[int, Option(min=1, metavar="N", help="Checkpoints kept, the newest.")] = 2
    log: Annotated[
        Literal["jsonl", "tensorboard", "wandb"], Option(help="Where steps are logged besides metrics.jsonl.")
    ] = "jsonl"
