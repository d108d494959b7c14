"""Choosing without looking at test data: what is held out of the support, and the fit that follows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from clipkit.methods.adapters.base import Adapter
from clipkit.methods.adapters.data import Samples
from clipkit.methods.adapters.tuning import accuracy
from clipkit.stream.hashing import ticket

_MOST = 4  # held out of each class
_LEAST = 4  # samples a class must have before any is held out

A = TypeVar("A", bound=Adapter)


@dataclass(frozen=True)
class Selection:
    """on: what parameters were chosen on: `validation`, `held-out` samples of the support, or `untuned`: on nothing.

    samples: how many. score: accuracy of the chosen there, None if untuned.
    """

    on: str
    samples: int
    accuracy: float | None

    def to_json(self) -> dict[str, Any]:
        """For adapter.json and reports."""
        return {"on": self.on, "samples": self.samples, "accuracy": self.accuracy}


def fit(adapter: A, support: Samples, validation: Samples | None = None) -> tuple[A, Selection]:
    """Fit an adapter, choosing its open parameters on validation data.

    Without any, min(4, K / 2) samples are held out of each class that has K >= 4 (a fit on the rest chooses, then one
    on everything follows with what was chosen); where no class has so many, the untuned defaults hold.
    """
    if validation is not None and len(validation):
        adapter.fit(support, validation)
        return adapter, _selected("validation", adapter, validation)
    kept, held = hold_out(support)
    if not len(held):
        adapter.fit(support)
        return adapter, Selection("untuned", 0, None)
    part, rest = support.take(kept), support.take(held)
    adapter.fit(part, rest)
    selection = _selected("held-out", adapter, rest)
    adapter.fit(support, chosen=adapter.chosen_)
    return adapter, selection


def hold_out(support: Samples) -> tuple[np.ndarray, np.ndarray]:
    """The samples to fit on and those to choose on, int64 [a] and [b], ascending; by hash of name and seed."""
    counts = support.counts
    names = support.names or [str(row) for row in range(len(support))]
    drawn = [ticket(name, support.task.seed, "hold-out") for name in names]
    order = sorted(range(len(support)), key=drawn.__getitem__)
    quota = np.where(counts >= _LEAST, np.minimum(_MOST, counts // 2), 0)
    held: list[int] = []
    for row in order:
        if quota[support.labels[row]] > 0:
            quota[support.labels[row]] -= 1
            held.append(row)
    chosen = np.zeros(len(support), bool)
    chosen[held] = True
    return np.flatnonzero(~chosen), np.flatnonzero(chosen)


def _selected(on: str, adapter: Adapter, samples: Samples) -> Selection:
    if samples.features is None or adapter.needs == "model":
        measured = adapter.facts_.get("validation_accuracy")
    else:
        measured = accuracy(adapter.logits(samples.plain), samples.labels)
    return Selection(on, len(samples), None if measured is None else round(float(measured), 6))
