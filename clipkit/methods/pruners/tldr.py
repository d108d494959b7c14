"""TL;DR: a few of each cluster, and of those only what is of the better half by a score.

Wang et al., "Too large; data reduction for vision-language pre-training", 2023. They train a codebook, cluster its
features, keep every n-th record of a cluster and of these the better half by an image-text matching score. Here the
features are any model's. Their order within a cluster is that of the files; here it is by distance to the centroid, so
that every n-th is a systematic sample from the typical to the odd.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from fractions import Fraction
from typing import Any, ClassVar, Final

import numpy as np

from clipkit.errors import UsageError
from clipkit.methods.pruners.base import Pool, Pruner, Reason, part
from clipkit.methods.pruners.shares import whole

EVERY: Final = 5
BETTER: Final = 0.5


class TLDR(Pruner):
    """Keeps the first, (1 + n)-th, (1 + 2 n)-th... nearest to each centroid, if of the better half by score.

    With a size: of each cluster's better records, evenly spaced by distance, a number in proportion to how many it has.

    options: best_by, the field of the score; best_fraction, the part of the scored records that is the better half;
    every, n, which a size replaces.
    """

    name: ClassVar[str] = "tldr"
    has_rule: ClassVar[bool] = True
    takes: ClassVar[tuple[str, ...]] = ("every", "best_by", "best_fraction")

    def __init__(self, options: Mapping[str, Any]) -> None:
        super().__init__(options)
        if not options.get("best_by"):
            raise UsageError("--method tldr needs --best-by FIELD: better by which score?", "such as: scores.clip")
        if self.sized and options.get("every") is not None:
            raise UsageError("--every is how many stay, and so is --keep or --keep-fraction", "say one of them")
        self.every: int = options.get("every") or EVERY
        fraction = options.get("best_fraction")
        self.fraction = BETTER if fraction is None else part("best_fraction", fraction)

    @property
    def reasons(self) -> list[str]:
        return [f"{self.name} {self.options['best_by']}", self.name]

    def most(self, pool: Pool) -> int:
        return int(self._better(pool).sum())

    def allocate(self, pool: Pool, size: int | None) -> np.ndarray:
        better = self._better(pool)
        if size is None:
            return pool.among(self._every_nth(pool, better))
        there = pool.among(better)
        shares = there * (size / max(int(there.sum()), 1))
        return whole(shares, np.zeros_like(there), there, size)

    def choose(self, pool: Pool, quota: np.ndarray) -> np.ndarray:
        better = self._better(pool)
        if not self.sized:
            return self._every_nth(pool, better)
        there, places = pool.among(better), _places_among(pool, better)
        count, wanted = np.maximum(there[pool.cluster], 1), quota[pool.cluster]

        def before(place: np.ndarray) -> Any:
            """How many of the q chosen of m stand before a place, if the i-th stands at floor((i + 1/2) m / q)."""
            return -((count - 2 * place * wanted) // (2 * count))  # ceil(place q / m - 1/2)

        chosen: np.ndarray = better & (before(places + 1) > before(places))
        return chosen

    def why(self, pool: Pool, quota: np.ndarray) -> list[Reason]:
        better = self._better(pool)
        limit = pool.score[better].min() if better.any() else math.nan
        by_score = Reason(self.reasons[0], ~better, pool.score, np.full(len(pool), limit))
        if self.sized:
            places, limits = _places_among(pool, better), quota[pool.cluster]
        else:
            places, limits = pool.places(pool.distance), np.full(len(pool), self.every)
        return [by_score, Reason(self.name, better, places + 1, limits)]

    def columns(self, pool: Pool) -> dict[str, np.ndarray]:
        return {"better": pool.among(self._better(pool))}

    def facts(self, pool: Pool, size: int | None) -> dict[str, Any]:
        better = self._better(pool)
        limit = float(pool.score[better].min()) if better.any() else None
        said = {"best_by": self.options["best_by"], "best_fraction": self.fraction, "better": int(better.sum())}
        return said | {"limit": limit} | ({} if self.sized else {"every": self.every})

    def _every_nth(self, pool: Pool, better: np.ndarray) -> np.ndarray:
        chosen: np.ndarray = better & (pool.places(pool.distance) % self.every == 0)
        return chosen

    def _better(self, pool: Pool) -> np.ndarray:
        """The better half, bool [n]: of the m records with a score the best round(fraction m), ties by ticket."""
        scored = int((~np.isnan(pool.score)).sum())
        count = math.floor(Fraction(str(self.fraction)) * scored + Fraction(1, 2))
        better = np.zeros(len(pool), bool)
        better[pool.order(-pool.score)[:count]] = True  # NaN comes last
        return better


def _places_among(pool: Pool, chosen: np.ndarray) -> np.ndarray:
    """The place of each chosen record among the chosen of its cluster by distance, int64 [n]; for others no matter."""
    return pool.places(np.where(chosen, pool.distance, np.inf))
