"""Density-based pruning: most records from complex clusters, and of each cluster the hardest.

Abbas, Rusak, Tirumala, Brendel, Chaudhuri & Morcos, "Effective pruning of web-scale datasets based on complexity of
concept clusters", 2024. Cluster j of k has the complexity C_j = d_intra * d_inter: how far its members are from its
centroid, and how far that is from the l nearest other centroids, in the mean. Its part of the N records to keep aims at
P_j = softmax(C / tau)_j, and the quotas are the nearest to P N that add up to N within what each cluster has: a
quadratic program that is solved by filling up to a level (`shares.water_level`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Final

import numpy as np

from clipkit.errors import UsageError
from clipkit.methods.pruners.base import Pool, Pruner
from clipkit.methods.pruners.prototypes import mean_distance
from clipkit.methods.pruners.shares import water_level, whole

if TYPE_CHECKING:
    from clipkit.features.centroids import Centroids

TAU: Final = 0.1  # the paper's; the authors' code has 0.5
NEIGHBOURS: Final = 20  # the authors' code's
_SPARE: Final = 8  # centroids found by f32 beyond those that are asked for
_HELD: Final = 1 << 22  # numbers of neighbours that are looked at together: 32 MB
_MANY: Final = 100_000_000  # records from which the authors used 500 clusters (280 million); 100 for 12.8 million


class Density(Pruner):
    """Keeps of each cluster the farthest from its centroid, and more of complex clusters.

    options: tau, the temperature; neighbours, how many of the nearest centroids d_inter is about; min_per_cluster, how
    many of each cluster stay at least (or all that it has).
    """

    name: ClassVar[str] = "density"
    takes: ClassVar[tuple[str, ...]] = ("tau", "neighbours", "min_per_cluster")

    def __init__(self, options: Mapping[str, Any]) -> None:
        super().__init__(options)
        self.tau = TAU if options.get("tau") is None else float(options["tau"])
        self.neighbours: int = options.get("neighbours") or NEIGHBOURS
        self.least: int = options.get("min_per_cluster") or 0
        self._found: tuple[Pool, dict[str, np.ndarray]] | None = None  # of the pool that was asked about last
        if not 0 < self.tau < np.inf:
            raise UsageError(f"--tau is above 0, not {self.tau:g}", "0.1 is the paper's")

    def default_k(self, n: int) -> int:
        return min(super().default_k(n), 500 if n >= _MANY else 100)

    def allocate(self, pool: Pool, size: int | None) -> np.ndarray:
        assert size is not None
        aim, lower = self._aim(pool, size), self._lower(pool, size)
        shares = np.clip(aim + water_level(aim, lower, pool.sizes, size), lower, pool.sizes)
        return whole(shares, lower, pool.sizes, size)

    def places(self, pool: Pool) -> np.ndarray:
        return pool.places(-pool.distance)

    def columns(self, pool: Pool) -> dict[str, np.ndarray]:
        if self._found is None or self._found[0] is not pool:
            found = complexity(pool, self.neighbours)
            self._found = pool, found | {"p": softmax(found["complexity"], self.tau)}
        return self._found[1]

    def facts(self, pool: Pool, size: int | None) -> dict[str, Any]:
        assert size is not None
        level = water_level(self._aim(pool, size), self._lower(pool, size), pool.sizes, size) if len(pool) else 0.0
        said = {"tau": self.tau, "neighbours": self.neighbours, "min_per_cluster": self.least}
        return said | {"lambda": round(level, 6)}

    def _aim(self, pool: Pool, size: int) -> np.ndarray:
        """P N, f64 [k]; 0 for empty clusters."""
        aim: np.ndarray = np.nan_to_num(self.columns(pool)["p"]) * size
        return aim

    def _lower(self, pool: Pool, size: int) -> np.ndarray:
        """The least of each cluster, int64 [k]. Raises UsageError where that is more than stays."""
        lower: np.ndarray = np.minimum(self.least, pool.sizes)
        needed, clusters = int(lower.sum()), int((pool.sizes > 0).sum())
        if needed > size:
            raise UsageError(
                f"--min-per-cluster {self.least} of {clusters:,} clusters is {needed:,} records, and {size:,} stay",
                "lower it, keep more, or make fewer clusters (--k)",
            )
        return lower


def complexity(pool: Pool, neighbours: int) -> dict[str, np.ndarray]:
    """d_intra, d_inter and their product `complexity` of each cluster, f64 [k]; NaN for empty clusters.

    A cluster of one has no d_intra of its own: it gets the mean of the others'. Empty clusters are no neighbours.
    """
    assert pool.centroids is not None
    intra, inter = mean_distance(pool), np.full(pool.k, np.nan)
    several, some = pool.sizes > 1, pool.sizes > 0
    intra[some & ~several] = intra[several].mean() if several.any() else 0.0
    inter[some] = neighbour_distance(pool.centroids, np.flatnonzero(some), neighbours)
    return {"d_intra": intra, "d_inter": inter, "complexity": intra * inter}


def neighbour_distance(centroids: Centroids, chosen: np.ndarray, neighbours: int) -> np.ndarray:
    """The mean distance of each chosen centroid to the nearest other chosen ones, f64 [m]; 0 where it is alone.

    The distance is the clusters' own: 1 - cosine, or Euclidean where they are not spherical. What f32 finds near is
    compared again in f64 without BLAS, so that the result is the same on any machine.
    """
    import faiss

    rows = np.ascontiguousarray(centroids.rows[chosen], np.float32)
    count = min(neighbours, len(rows) - 1)
    if count < 1:
        return np.zeros(len(rows))
    index = faiss.IndexFlatIP(rows.shape[1]) if centroids.spherical else faiss.IndexFlatL2(rows.shape[1])
    index.add(rows)
    means, looked_at = np.empty(len(rows)), min(count + 1 + _SPARE, len(rows))
    block = max(_HELD // (looked_at * rows.shape[1]), 1)
    for start in range(0, len(rows), block):
        here = np.arange(start, min(start + block, len(rows)))
        found = index.search(rows[here], looked_at)[1]
        near, own = rows[found].astype(np.float64), rows[here].astype(np.float64)
        if centroids.spherical:
            apart = 1 - np.einsum("ncd,nd->nc", near, own)
        else:
            apart = np.sqrt(np.square(near - own[:, None]).sum(axis=2))
        apart[found == here[:, None]] = np.inf
        means[here] = np.sort(np.round(apart, 12))[:, :count].mean(axis=1)
    return means


def softmax(values: np.ndarray, tau: float) -> np.ndarray:
    """softmax(values / tau) over those that are numbers, f64 [k]; NaN stays."""
    some = ~np.isnan(values)
    out = np.full(len(values), np.nan)
    if some.any():
        raised = np.exp((values[some] - values[some].max()) / tau)
        out[some] = raised / raised.sum()
    return out
