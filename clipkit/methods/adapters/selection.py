"""Choosing without looking at test data: what is held out of the support, and the fit that follows."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np

from clipkit.methods.adapters.base import Adapter
from clipkit.methods.adapters.data import Samples
from clipkit.methods.adapters.tuning import score, temperature
from clipkit.stream.hashing import ticket

_MOST = 4  # held out of each class
_LEAST = 4  # samples that most classes must have before any is held out

A = TypeVar("A", bound=Adapter)


@dataclass(frozen=True)
class Selection:
    """on: what parameters were chosen on: `validation`, `held-out` samples of the support, or `untuned`: on nothing.
    `fixed`: the method has nothing to choose, and there was no validation data to measure it on.

    samples: how many. accuracy, cross_entropy: of the chosen there; None if on nothing, or not told by the method.
    """

    on: str
    samples: int
    accuracy: float | None
    cross_entropy: float | None = None

    def to_json(self) -> dict[str, Any]:
        """For adapter.json and reports."""
        return {"on": self.on, "samples": self.samples, "accuracy": self.accuracy}


@dataclass(frozen=True)
class Explored(Generic[A]):
    """adapter: fitted on the whole support. trials: fits, each with samples that it didn't learn from: that whose
    parameters were chosen, with the samples they were chosen on; none if untuned or fixed."""

    adapter: A
    selection: Selection
    trials: tuple[tuple[A, Samples], ...] = ()


def fresh(adapter: A) -> A:
    """An unfitted adapter with the same parameters."""
    return type(adapter)(**adapter.params)


def fit(adapter: A, support: Samples, validation: Samples | None = None) -> tuple[A, Selection]:
    """Fit an adapter, choosing its open parameters, and then its temperature, on validation data.

    Without any, min(4, K / 2) samples are held out of each class, where most classes have K >= 4 (a fit on the rest
    chooses, then one on everything follows with what was chosen); else the untuned defaults hold. A method without
    anything to choose (`Adapter.chooses`) is fitted once, on everything: it takes hours to train a model twice.
    """
    explored = explore(adapter, support, validation)
    return explored.adapter, explored.selection


def explore(adapter: A, support: Samples, validation: Samples | None = None) -> Explored[A]:
    """`fit`, and what is needed to measure the choice."""
    if validation is not None and len(validation):
        adapter.fit(support, validation)
        adapter.temperature = _temperature(adapter, validation)
        return Explored(adapter, _selected("validation", adapter, validation), ((adapter, validation),))
    kept, held = hold_out(support)
    if not adapter.chooses or not len(held):
        adapter.fit(support)
        return Explored(adapter, Selection("untuned" if adapter.chooses else "fixed", 0, None))
    unseen = support.take(held)
    adapter.fit(support.take(kept), unseen)
    warmth = adapter.temperature = _temperature(adapter, unseen)
    selection = _selected("held-out", adapter, unseen)
    trial = copy.copy(adapter)  # a fit replaces what an adapter learned and leaves the old as it is
    adapter.fit(support, chosen=adapter.chosen_)
    adapter.temperature = warmth
    return Explored(adapter, selection, ((trial, unseen),))


def hold_out(support: Samples) -> tuple[np.ndarray, np.ndarray]:
    """The samples to fit on and those to choose on, int64 [a] and [b], ascending; by hash of name and seed.

    Where most classes have K < 4 nothing is held out: what is chosen on a few classes is at the expense of the rest.
    """
    counts = support.counts
    enough = 2 * np.count_nonzero(counts >= _LEAST) > np.count_nonzero(counts)
    quota = np.minimum(_MOST, counts // 2) if enough else np.zeros_like(counts)
    held = _rank(support) < quota[support.labels]
    return np.flatnonzero(~held), np.flatnonzero(held)


def cross_validate(adapter: A, support: Samples) -> tuple[tuple[A, Samples], ...]:
    """Fits without validation data, each with the samples that it didn't learn from; for few samples a class.

    One after another of each class with two samples or more is left out, up to 3 in all; the other classes stay whole.
    Empty where each class has one sample.
    """
    rank = _rank(support)
    several = support.counts[support.labels] > 1
    trials = []
    for turn in range(_LEAST - 1):
        held = several & (rank == turn)
        if held.any():
            fitted = fresh(adapter).fit(support.take(np.flatnonzero(~held)))
            trials.append((fitted, support.take(np.flatnonzero(held))))
    return tuple(trials)


def names(samples: Samples) -> list[str]:
    """What random choices among samples go by."""
    return list(samples.names) or [str(row) for row in range(len(samples))]


def _rank(support: Samples) -> np.ndarray:
    """Each sample's place among those of its class, int64 [n], in an order by hash of name and seed."""
    drawn = [ticket(name, support.task.seed, "hold-out") for name in names(support)]
    return ranks(drawn, support)


def ranks(drawn: Sequence[bytes], samples: Samples) -> np.ndarray:
    """Each sample's place among those of its class, int64 [n], in the order of its ticket."""
    rank = np.zeros(len(samples), np.int64)
    taken = np.zeros(len(samples.task.classes), np.int64)
    for row in sorted(range(len(samples)), key=drawn.__getitem__):
        rank[row] = taken[samples.labels[row]]
        taken[samples.labels[row]] += 1
    return rank


def _temperature(adapter: Adapter, samples: Samples) -> float:
    if samples.features is None or adapter.changes_weights():
        return 1.0  # a model's own logits have the model's own scale
    return temperature(adapter.logits(samples.plain), samples.labels)


def _selected(on: str, adapter: Adapter, samples: Samples) -> Selection:
    if samples.features is None or adapter.needs == "model":
        measured = adapter.facts_.get("validation_accuracy")
        return Selection(on, len(samples), None if measured is None else round(float(measured), 6))
    correct, likelihood = score(adapter.logits(samples.plain), samples.labels)
    return Selection(on, len(samples), round(correct, 6), round(-likelihood, 6))
