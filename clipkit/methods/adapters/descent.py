"""Gradient descent for the methods that train a few arrays: AdamW, a cosine schedule, batches that a hash draws.

Gradients are worked out by hand in the methods; there is no torch here. What is drawn hangs on names and a seed alone,
so the same samples in another order train the same arrays.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Final, TypeAlias

import numpy as np

from clipkit.methods.adapters.data import Features, Samples, shuffled
from clipkit.methods.adapters.tuning import Score
from clipkit.stream.hashing import share

BATCH: Final = 256  # samples of a step, at most

Weights: TypeAlias = Sequence[np.ndarray]


class AdamW:
    """Adam with decoupled weight decay (Loshchilov and Hutter, 2019), over arrays that it changes in place.

    weights: float arrays, any shapes. epsilon: added to the root of the second moment. decay: each step takes
    rate * decay of a weight away. betas: of the running means of gradients and of their squares.
    """

    def __init__(
        self, weights: Weights, *, epsilon: float = 1e-8, decay: float = 0.01, betas: tuple[float, float] = (0.9, 0.999)
    ) -> None:
        self._weights = weights
        self._epsilon, self._decay, self._betas = epsilon, decay, betas
        self._means = [np.zeros_like(weight) for weight in weights]
        self._squares = [np.zeros_like(weight) for weight in weights]
        self._steps = 0

    def step(self, gradients: Weights, rate: float) -> None:
        """One step down. gradients: one for each array, of its shape; they are used up. rate: the learning rate."""
        self._steps += 1
        first, second = self._betas
        unbias = 1 - first**self._steps, 1 - second**self._steps
        for weight, mean, square, gradient in zip(self._weights, self._means, self._squares, gradients, strict=True):
            weight *= 1 - rate * self._decay
            mean *= first
            mean += (1 - first) * gradient
            gradient *= gradient
            square *= second
            square += (1 - second) * gradient
            below = np.sqrt(square, out=gradient)
            below /= unbias[1] ** 0.5
            below += self._epsilon
            np.divide(mean, below, out=below)
            below *= rate / unbias[0]
            weight -= below


def cosine(step: int, steps: int, top: float) -> float:
    """The learning rate of a step (from 0) of so many: from `top` down to 0 along half a cosine (Loshchilov and
    Hutter, 2017)."""
    return float(top * (1 + np.cos(np.pi * step / steps)) / 2)


def batches(names: Sequence[str], seed: int, epoch: int, size: int = BATCH) -> list[np.ndarray]:
    """The rows of each step of an epoch, int64: all of them once, in an order of the names' hashes.

    There are as few batches as can be with at most `size` rows, and they are as equal as can be: a rest of a few rows
    would weigh as much as a full one.
    """
    return np.array_split(shuffled(names, seed, f"epoch {epoch}"), -(-len(names) // size))


def in_order(samples: Samples) -> Samples:
    """The samples by class, then by name: what is made of them doesn't depend on the order in which they came.

    Those without names are named by their numbers.
    """
    names = list(samples.names) or [f"{row:09d}" for row in range(len(samples))]
    order = sorted(range(len(samples)), key=lambda row: (samples.labels[row], names[row]))
    return replace(samples, names=names).take(np.array(order, np.int64))


def drawn_views(samples: Samples, rows: np.ndarray, epoch: int) -> Features:
    """One view of each of some samples, for an epoch, by hash of their names. rows: int64 [b]."""
    features, views = samples.features, samples.views
    assert features is not None
    if views == 1:
        return features.take(rows)
    shares = [share(samples.names[row], samples.task.seed, f"view {epoch}") for row in rows]
    return features.take(rows * views + (np.array(shares) * views).astype(np.int64))


def cross_entropy_slope(logits: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """The gradient of the mean cross-entropy with respect to logits [b, C], in place; targets: int64 [b]."""
    logits -= logits.max(axis=1, keepdims=True)
    np.exp(logits, out=logits)
    logits /= logits.sum(axis=1, keepdims=True)
    logits[np.arange(len(targets)), targets] -= 1
    logits /= len(targets)
    return logits


def descend(
    weights: Weights,
    gradient: Callable[[np.ndarray, int], Weights],
    names: Sequence[str],
    *,
    seed: int,
    horizon: int,
    epochs: int,
    rate: float,
    epsilon: float = 1e-8,
) -> Iterator[int]:
    """Train arrays in place; after each epoch its number is given, from 1, so that one can look and stop.

    gradient: those of the mean loss over some rows, in some epoch. horizon: the epochs over which the rate falls to 0.
    epochs: how many of them are walked, at most `horizon`.
    """
    method = AdamW(weights, epsilon=epsilon)
    steps = horizon * -(-len(names) // BATCH)
    step = 0
    for epoch in range(1, epochs + 1):
        for rows in batches(names, seed, epoch):
            method.step(gradient(rows, epoch), cosine(step, steps, rate))
            step += 1
        yield epoch


def keep_best(weights: Weights, epochs: Iterable[int], score: Callable[[], Score]) -> int:
    """Walk all epochs and leave the arrays as they were after the best one, whose number is given; 0 is untrained.

    score: of the arrays as they are; of equals the earlier epoch counts.
    """
    best, top, kept = 0, score(), [weight.copy() for weight in weights]
    for epoch in epochs:
        now = score()
        if now > top:
            best, top, kept = epoch, now, [weight.copy() for weight in weights]
    for weight, good in zip(weights, kept, strict=True):
        weight[...] = good
    return best
