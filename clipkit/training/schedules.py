"""How the learning rate goes over a run."""

from __future__ import annotations

import math

from clipkit.training.settings import Settings


def rate(settings: Settings, step: int) -> float:
    """The learning rate of a step, from 1 to settings.steps.

    lr * step / warmup up to step `warmup`; then, with x from 0 towards 1 over what is left, `cosine` lr * (1 + cos(pi
    * x)) / 2 (Loshchilov and Hutter, 2017), `linear` lr * (1 - x), `constant` lr. The first step after the warm-up
    has x = 0, and the last one is not quite at 0, as in open_clip_train.
    """
    if step <= settings.warmup:
        return settings.lr * step / settings.warmup
    if settings.schedule == "constant":
        return settings.lr
    x = (step - settings.warmup - 1) / (settings.steps - settings.warmup)
    return settings.lr * (1 - x if settings.schedule == "linear" else (1 + math.cos(math.pi * x)) / 2)
