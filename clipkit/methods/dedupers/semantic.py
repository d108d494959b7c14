"""SemDeDup: images whose features are near, found within clusters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Final

import numpy as np

from clipkit.errors import UsageError
from clipkit.features.clusters import cluster, default_k
from clipkit.features.neighbours import Neighbours
from clipkit.methods.dedupers.base import Deduper, Links, Pairs, equal

if TYPE_CHECKING:
    from clipkit.features.vectors import Vectors

DEFAULT_EPS: Final = 0.03
LEAST_EPS: Final = 1e-6  # what features in f32 can tell
DEFAULT_ASSIGN: Final = 6


class Semantic(Deduper):
    """Images whose cosine is over 1 - eps (Abbas et al., "SemDeDup", 2023), compared within clusters of their features.

    options: eps (0.03); k, the number of clusters (`default_k`); assign (6): to how many clusters an image is assigned.
    With 1 it is the paper's rule: pairs are only found within one cluster. More is our extension: an image is compared
    with all whose nearest cluster is among its `assign` nearest, or the other way round.
    """

    name: ClassVar[str] = "semantic"
    encodes: ClassVar[bool] = True

    def __init__(self, options: Mapping[str, Any]) -> None:
        super().__init__(options)
        self.eps: float = options.get("eps", DEFAULT_EPS)
        self._k: int | None = options.get("k")
        self._assign: int = options.get("assign", DEFAULT_ASSIGN)
        check_eps(self.eps)

    @property
    def limit(self) -> float:
        return self.eps

    def links(self, keys: np.ndarray, present: np.ndarray, vectors: Vectors | None) -> NearFeatures:
        assert vectors is not None
        classes, representatives = equal(keys, present)
        distinct = vectors.only(representatives)
        # classes are in the order of their keys, digests of the vectors: as good as random, whatever the input's order
        order = np.arange(len(distinct))
        clusters = cluster(distinct, order, self._k or default_k(len(distinct)), self._assign)
        return NearFeatures(classes, Neighbours(distinct, clusters), self.eps)


class NearFeatures(Links):
    """Classes of equal features, linked where their cosine is over 1 - eps. `eps` may be changed."""

    def __init__(self, classes: np.ndarray, neighbours: Neighbours, eps: float) -> None:
        super().__init__(classes, len(neighbours))
        self.neighbours, self.eps = neighbours, eps

    def near(self, some: np.ndarray, others: np.ndarray) -> Pairs:
        return self.neighbours.pairs(1 - self.eps, some, others)


def check_eps(eps: float) -> None:
    """Raise UsageError for an eps that means nothing."""
    if not LEAST_EPS <= eps < 2:
        raise UsageError(
            f"--eps takes a distance from {LEAST_EPS:g} on, below 2, not {eps:g}",
            "1 - cosine: 0.03 drops what has a neighbour of cosine over 0.97",
        )
