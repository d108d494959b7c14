"""What an adapter says of samples, at any blend, also where it makes another model of the one that it was fitted on."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from clipkit.methods.adapters.base import Adapter
from clipkit.methods.adapters.data import Samples

if TYPE_CHECKING:
    from clipkit.models.base import Encoder

Encode: TypeAlias = "Callable[[Encoder, Samples], Samples]"
"""The samples as a model sees them: features of their pictures, and text features of their task's prompts, anew.
Samples without a picture ask for the texts alone."""


def answers(adapter: Adapter, samples: Samples, encode: Encode | None = None) -> np.ndarray:
    """The adapter's logits f64 [n, C] of the samples' plain pictures."""
    return next(along(adapter, samples, [1.0], encode))[0]


def zero_shot(samples: Samples, encode: Encode | None = None) -> np.ndarray:
    """What the model itself says of them, f64 [n, C]."""
    return samples.task.zero_shot(seen_plainly(samples, encode).plain)


def along(
    adapter: Adapter, samples: Samples, blends: Sequence[float], encode: Encode | None = None
) -> Iterator[tuple[np.ndarray, Samples]]:
    """For each blend: the adapter's logits f64 [n, C], and the samples as its model sees them then.

    The samples may be of another task than the adapter: the logits are over the adapter's classes.
    """
    plainly = seen_plainly(samples, encode)
    if adapter.changes_weights():
        for blend in blends:
            yield (
                _through_model(adapter, samples, blend, encode)
                if blend
                else (
                    adapter.task_.zero_shot(plainly.plain),
                    plainly,
                )
            )
        return
    before, after = adapter.task_.zero_shot(plainly.plain), _at(adapter, 1.0).logits(plainly.plain)
    for blend in blends:
        yield (after if blend == 1 else before + blend * (after - before)), plainly


def seen_plainly(samples: Samples, encode: Encode | None) -> Samples:
    """Samples with the features that the model itself gives."""
    if samples.features is not None:
        return samples
    assert encode is not None and samples.task.encoder is not None, "samples without features need a model"
    return encode(samples.task.encoder, samples)


def _through_model(
    adapter: Adapter, samples: Samples, blend: float, encode: Encode | None
) -> tuple[np.ndarray, Samples]:
    own = _at(adapter, blend)
    task = own.task_
    assert encode is not None and task.encoder is not None, "a method that changes the model needs a way to encode"
    model = own.attach(task.encoder)
    seen = encode(model, samples)
    nothing = Samples(task, np.empty(0, np.int64))
    own.task_ = replace(task, text=encode(model, nothing).task.text)
    return own.logits(seen.plain), seen


def _at(adapter: Adapter, blend: float) -> Adapter:
    """The adapter with another blend; it shares what it learned."""
    other = copy.copy(adapter)
    other.blend = blend
    return other
