"""The training loop: a batch, its loss, a step, and what a run hears of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch

from clipkit.errors import ClipkitError
from clipkit.methods.losses.base import Loss
from clipkit.training.distributed import Alone
from clipkit.training.loader import Batch
from clipkit.training.settings import Settings
from clipkit.training.student import Student

MAX_SCALE = math.log(100)  # of the logits: beyond it training is unstable (Radford et al., 2021)


@dataclass(frozen=True)
class Step:
    """What is known after a step. step: from 1. loss, parts: means over the processes. after: as `Batch.after`."""

    step: int
    loss: float
    parts: dict[str, float]
    lr: float
    scale: float
    norm: float
    after: int


def train(
    student: Student,
    batches: Iterable[Batch],
    loss: Loss,
    settings: Settings,
    optimizer: torch.optim.Optimizer,
    hear: Callable[[Step], None],
    *,
    group: Alone | None = None,
    done: int = 0,
) -> None:
    """Steps `done` + 1 to the last. hear: told of each when it is over, and may write a checkpoint or raise.

    Raises ClipkitError where the loss is not finite: the weights are those before the step then.
    """
    group = group or Alone()
    parameters = list(student.parameters().values())
    for step, batch in zip(range(done + 1, settings.steps + 1), batches, strict=False):
        lr = rate(settings, step)
        for one in optimizer.param_groups:
            one["lr"] = lr * one.get("share", 1.0)
        optimizer.zero_grad(set_to_none=True)
        parts = loss(student.outputs(batch), group)
        value = float(parts["loss"].detach())
        if not math.isfinite(value):
            raise ClipkitError(f"the loss became {value} in step {step}", "lower --lr, or look at these pictures")
        parts["loss"].backward()  # type: ignore[no-untyped-call]
        group.average([parameter.grad for parameter in parameters if parameter.grad is not None])
        norm = float(torch.nn.utils.clip_grad_norm_(parameters, settings.clip_norm or math.inf))
        optimizer.step()
        with torch.no_grad():
            student.model.logit_scale.clamp_(0, MAX_SCALE)
            scale = float(student.model.logit_scale.exp())
        said = {name: float(part.detach()) for name, part in parts.items() if name != "loss"}
        hear(Step(step, value, said, lr, scale, norm, batch.after))


def rate(settings: Settings, step: int) -> float:
    """The learning rate of a step, from 1."""
    if step <= settings.warmup:
        return settings.lr * step / settings.warmup
    part = (step - settings.warmup - 1) / max(1, settings.steps - settings.warmup)
    return settings.lr * (1 + math.cos(math.pi * part)) / 2 if settings.schedule == "cosine" else settings.lr
