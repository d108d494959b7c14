"""Self-supervised prototypes: how far a record is from its cluster's centre says how hard it is.

Sorscher, Geirhos, Shekhar, Ganguli & Morcos, "Beyond neural scaling laws: beating power law scaling via data pruning",
2022. They cluster ImageNet's SWaV features with k = 1,000, find the result about as good for any k within a factor of
ten, and keep the hardest where there is plenty of data, the easiest where there is little.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from clipkit.errors import UsageError
from clipkit.methods.pruners.base import Pool, Pruner

WHICH = ("hard", "easy")


class Prototypes(Pruner):
    """Keeps the records farthest from (hard) or nearest to (easy) their centroid, whatever cluster they are in.

    options: which, hard (default) or easy.
    """

    name: ClassVar[str] = "prototypes"
    takes: ClassVar[tuple[str, ...]] = ("which",)

    def __init__(self, options: Mapping[str, Any]) -> None:
        super().__init__(options)
        self.which: str = options.get("which") or "hard"
        if self.which not in WHICH:
            raise UsageError(f"--which is {' or '.join(WHICH)}, not {self.which!r}")

    def allocate(self, pool: Pool, size: int | None) -> np.ndarray:
        return pool.among(pool.order(self._key(pool))[:size])

    def places(self, pool: Pool) -> np.ndarray:
        return pool.places(self._key(pool))

    def columns(self, pool: Pool) -> dict[str, np.ndarray]:
        return {"d_intra": mean_distance(pool)}

    def facts(self, pool: Pool, size: int | None) -> dict[str, Any]:
        order = pool.order(self._key(pool))[:size]
        return {"which": self.which, "limit": float(pool.distance[order[-1]]) if len(order) else None}

    def _key(self, pool: Pool) -> np.ndarray:
        key: np.ndarray = pool.distance if self.which == "easy" else -pool.distance
        return key


def mean_distance(pool: Pool) -> np.ndarray:
    """d_intra: the mean distance of each cluster's members to its centroid, f64 [k]; NaN for an empty cluster.

    The sum of a cluster is taken in the order of its distances, so that it doesn't hang on the order of the input.
    """
    order = np.lexsort((pool.distance, pool.cluster))
    sums = np.bincount(pool.cluster[order], pool.distance[order], minlength=pool.k)
    means = np.full(pool.k, np.nan)
    np.divide(sums, pool.sizes, out=means, where=pool.sizes > 0)
    return means
