"""A cache of the samples as a classifier: Tip-Adapter."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Final

import numpy as np

from clipkit.methods.adapters.base import Adapter
from clipkit.methods.adapters.data import Features, Samples, blocks, product
from clipkit.methods.adapters.descent import in_order
from clipkit.methods.adapters.tuning import Axis, tune
from clipkit.methods.parameters import param

if TYPE_CHECKING:
    from clipkit.methods.adapters.network import Network

ALPHA: Final = Axis(0.1, 10_000, points=11, zero=True)
BETA: Final = Axis(0.1, 50)
UNTUNED_ALPHA: Final = 10.0
UNTUNED_BETA: Final = 3.0
_KEYS = 2048  # of a block
_CELLS = 1 << 23  # affinities of a block
_HELD = 1 << 29  # affinities that a search holds in memory, 4 bytes each


@dataclass(frozen=True)
class Cache:
    """Keys and the classes they vote for. keys: f32 [N, d]. labels: int64 [N], ascending. classes: how many there are.

    unit: the keys are of unit length, so that a product with one is a cosine, which rounding mustn't take above 1.
    """

    keys: np.ndarray
    labels: np.ndarray
    classes: int
    unit: bool = True

    @property
    def counts(self) -> np.ndarray:
        """Keys of each class, int64 [C]."""
        return np.bincount(self.labels, minlength=self.classes)

    def votes(self, rows: np.ndarray, beta: float) -> np.ndarray:
        """exp(-beta * (1 - rows . keys)) summed over each class's keys, then evened: f64 [n, C].

        rows: f32 [n, d]. A row asked for alone is worked out without BLAS.
        """
        out = np.zeros((len(rows), self.classes))
        for some in blocks(len(rows), _CELLS // _KEYS):
            for keys in blocks(len(self.keys), _KEYS):
                shares = self._shares(product(rows[some], self.keys[keys]), beta)
                add_by_class(out[some], shares, self.labels[keys])
        even(out, self.counts)
        return out

    def searcher(self, rows: np.ndarray) -> Callable[[float], np.ndarray]:
        """`votes` of the same rows for one beta after another: products are made once, in f32; each beta is one exp."""
        if len(rows) * len(self.keys) > _HELD:
            return lambda beta: self.votes(rows, beta)
        near = rows @ self.keys.T

        def votes(beta: float) -> np.ndarray:
            out = np.zeros((len(rows), self.classes))
            for some in blocks(len(rows), max(1, _CELLS // len(self.keys))):
                add_by_class(out[some], self._shares(near[some].copy(), beta), self.labels)
            even(out, self.counts)
            return out

        return votes

    def _shares(self, near: np.ndarray, beta: float) -> np.ndarray:
        """exp(-beta * (1 - near)), in place."""
        if self.unit:
            np.minimum(near, 1, out=near)
        near -= 1
        near *= beta
        shares: np.ndarray = np.exp(near, out=near)
        return shares


@dataclass(kw_only=True)
class Tip(Adapter):
    """Zero-shot logits and a vote of the samples: + alpha * sum over a class's samples of exp(-beta * (1 - cosine))
    (Zhang et al., "Tip-Adapter", ECCV 2022). Keys are the unit means of each sample's views.

    It doesn't fold: the exponential stands between the product with the keys and the sum over a class.

    Where ours differs. Their scripts search alpha and beta on a grid of 200 x 20 and, for ImageNet, on the test set;
    here they are chosen on validation data, coarse to fine, and in wider ranges, since features before the projection
    are farther apart. Without validation data alpha is 10 and beta 3, not 1.17 and 1: logits of a model are log-odds
    whatever its scale is, and so one sample counts for about two nats (cosines within a class are 0.15 to 0.25 above
    the others). Votes are sums, as published, where classes have equally many samples; else a class's is its mean times
    the mean count, so that none is favoured for being larger, and a class without samples has the mean of the others'.
    """

    name: ClassVar[str] = "tip"
    cost: ClassVar[str] = "none to fit, seconds to choose alpha and beta; each image is compared with every sample"
    citation: ClassVar[str] = (
        "Zhang et al., Tip-Adapter: Training-free Adaption of CLIP for Few-shot Classification, 2022"
    )
    views: ClassVar[bool] = True
    closed_form: ClassVar[bool] = True
    all_classes: ClassVar[bool] = False
    tries_many: ClassVar[bool] = True

    alpha: float | None = param(None, "weight on the votes", untuned=UNTUNED_ALPHA, low=0)
    beta: float | None = param(None, "how fast a vote falls with distance", untuned=UNTUNED_BETA, low=0)

    def _fit(self, support: Samples, validation: Samples | None) -> None:
        support = in_order(support)
        self.state_ = {"keys": support.mean_view(), "labels": support.labels}
        if validation is not None:
            self._search(validation)

    def _search(self, validation: Samples) -> None:
        """Choose what is None of alpha and beta."""
        if self.alpha is not None and self.beta is not None:
            return
        plain = validation.plain
        found = tune(
            self.task_.zero_shot(plain),
            self._cache().searcher(plain.of(self.task_.space)),
            validation.labels,
            ALPHA if self.alpha is None else Axis(self.alpha, self.alpha),
            BETA if self.beta is None else None,
            fixed=self.at("beta"),
        )
        if self.alpha is None:
            self.chosen_["alpha"] = found.alpha
        if self.beta is None:
            self.chosen_["beta"] = found.outer

    def _cache(self) -> Cache:
        return Cache(self.state_["keys"], self.state_["labels"], len(self.task_.classes))

    def _logits(self, features: Features) -> np.ndarray:
        logits = self.task_.zero_shot(features)
        logits += self.at("alpha") * self._cache().votes(features.of(self.task_.space), self.at("beta"))
        return logits

    def network(self, made: Network) -> str:
        cache = self._cache()
        near = made.product(made.features(self.task_.space), cache.keys)
        if cache.unit:
            near = made.at_most(near, 1.0)
        shares = made.exp(made.times(made.add(near, -1.0), self.at("beta")))
        votes = np.zeros((len(cache.keys), cache.classes))  # what one key's share is to each class, [N, C]
        votes[np.arange(len(votes)), cache.labels] = 1.0
        even(votes, cache.counts)
        return made.add(made.zero_shot(), made.times(made.product(shares, votes.T), self.at("alpha")))


def even(votes: np.ndarray, counts: np.ndarray) -> None:
    """Make sums [n, C] over classes of these counts, int64 [C], comparable, in place: see `Tip`."""
    seen = counts > 0
    if not seen.any():
        raise ValueError("its cache holds no image")
    votes *= counts[seen].mean() / np.maximum(counts, 1)
    votes[:, ~seen] = votes[:, seen].mean(axis=1, keepdims=True)


def even_slope(slope: np.ndarray, counts: np.ndarray) -> None:
    """The gradient by evened votes [n, C] made that by the sums, in place; of no meaning for a class without any."""
    seen = counts > 0
    slope[:, seen] += slope[:, ~seen].sum(axis=1, keepdims=True) / np.count_nonzero(seen)
    slope *= counts[seen].mean() / np.maximum(counts, 1)


def add_by_class(out: np.ndarray, shares: np.ndarray, labels: np.ndarray) -> None:
    """Add to out [n, C] the sums of shares [n, N] over columns of one label; labels: int64 [N], ascending."""
    starts = np.flatnonzero(np.diff(labels, prepend=-1))
    out[:, labels[starts]] += np.add.reduceat(shares, starts, axis=1)
