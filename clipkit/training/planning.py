"""What a run is asked to do, made whole: contradictions are refused, and what nobody said gets a value that suits."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from clipkit.errors import ClipkitError, UsageError
from clipkit.training.settings import Settings

BATCH: Final = 256
WARMUP: Final = 2000  # as in Radford et al., 2021
EPOCHS: Final = {True: 5.0, False: 32.0}  # of a model that was trained before, and of a random one
LEAST_STEPS: Final = {True: 100, False: 1000}  # of few pairs these are more epochs
_LION: Final = 5  # its rate is 3 to 10 times smaller than AdamW's, its decay as much larger (Chen et al., 2023)


def check(asked: Mapping[str, Any], *, trained: bool) -> None:
    """Raise UsageError for settings that contradict each other, before anything is read.

    asked: fields of `Settings`, and epochs and samples. trained: whether the model comes with weights.
    """
    lengths = [name for name in ("steps", "epochs", "samples") if asked.get(name) is not None]
    if len(lengths) > 1:
        raise UsageError(f"--{lengths[0]} and --{lengths[1]} both say how long", "give one of them")
    if asked.get("epochs") == 0:
        raise UsageError("--epochs 0: nothing would be learned")
    ema = asked.get("ema")
    if ema is not None and not 0 < ema < 1:
        raise UsageError(f"--ema {ema:g}: a decay lies between 0 and 1", "for example: --ema 0.999")
    if asked.get("clip_norm") == 0:
        raise UsageError("--clip-norm 0: no gradient would be left", "leave it out for no limit")
    if asked.get("layer_decay") == 0:
        raise UsageError("--layer-decay 0: nothing below the last layer would learn", "for example: --layer-decay 0.75")
    _check_chunk(asked.get("chunk"), asked.get("batch_size"))
    _check_trained(asked, trained)
    _converted({name: value for name, value in asked.items() if name not in ("epochs", "samples")})


def _check_chunk(chunk: int | None, batch: int | None) -> None:
    if chunk and batch and chunk > batch:
        hint = "a part of the batch at once is the same step in less memory; leave it out for all of it"
        raise UsageError(f"--chunk {chunk} is more than a batch of {batch}", hint)


def _check_trained(asked: Mapping[str, Any], trained: bool) -> None:
    locked = [f"--{name.replace('_', '-')}" for name in ("lock_image", "lock_text") if asked.get(name)]
    if len(locked) == 2:
        raise UsageError("--lock-image and --lock-text leave nothing to train")
    held = [*locked, *(["--lora"] if asked.get("lora_rank") else [])]
    if held and not trained:
        hint = "name a model that was trained before, as `clipkit models` has them"
        raise UsageError(f"{held[0]} keeps weights as they are, and those of a bare architecture are random", hint)


def plan(asked: Mapping[str, Any], count: int, *, trained: bool, device: str = "cpu", world: int = 1) -> Settings:
    """The settings of a run over `count` examples in `world` processes. asked, trained: as `check` takes them.

    Raises ClipkitError where the data is too little for what was asked.
    """
    given = {name: value for name, value in asked.items() if value is not None}
    if count < 2 * world:
        raise ClipkitError("one pair: a loss tells pairs apart" if count == 1 else f"{count} pairs are too few")
    batch = given.setdefault("batch_size", min(BATCH, count) // world * world)
    if batch % world or batch < 2 * world:
        raise UsageError(f"--batch-size {batch} cannot be shared by {world} processes", f"a multiple of {world}")
    if batch > count:
        raise ClipkitError(f"there are {count:,} pairs: less than one batch of {batch:,}", "lower --batch-size")
    _check_chunk(given.get("chunk"), batch)
    epochs, samples = given.pop("epochs", None), given.pop("samples", None)
    if "steps" not in given:
        seen = samples or count * (epochs or EPOCHS[trained])
        given["steps"] = max(math.ceil(seen / batch), 1 if samples or epochs else LEAST_STEPS[trained])
    steps = given["steps"]
    if given.setdefault("warmup", min(steps // 10, WARMUP)) >= steps:
        raise UsageError(f"--warmup {given['warmup']}: the run has {steps} steps", "fewer than these")
    lion = given.get("optimizer") == "lion"
    rate = 2e-4 if given.get("lora_rank") else 1e-5 if trained and not given.get("lock_image") else 5e-4
    given.setdefault("lr", rate / _LION if lion else rate)
    given.setdefault("weight_decay", 1.0 if lion else 0.2)
    given.setdefault("precision", "f32" if device.startswith("cpu") else "bf16")
    return _converted(given)


def _converted(given: Mapping[str, Any]) -> Settings:
    known = {name: value for name, value in given.items() if value is not None}
    try:
        return msgspec.convert(known, Settings)
    except msgspec.ValidationError as error:
        raise UsageError(f"settings of a run: {error}") from None
