"""Image-based filtering: the clusters that a reference set falls into.

Gadre et al., "DataComp: in search of the next generation of multimodal datasets", 2023: 100,000 clusters of the pool's
image features, of which those stay that are nearest to at least one image of ImageNet's training set.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from clipkit.errors import UsageError
from clipkit.methods.pruners.base import Pool, Pruner
from clipkit.methods.pruners.shares import filled, whole


class ImageBased(Pruner):
    """Keeps all records of clusters that a reference item is nearest to.

    With a size: of each such cluster a number in proportion to its hits, at most what it has, so that what stays is
    spread over the clusters as the reference is; within a cluster by ticket.

    options: reference, the feature stores and sources that it is made of.
    """

    name: ClassVar[str] = "image-based"
    has_rule: ClassVar[bool] = True
    takes: ClassVar[tuple[str, ...]] = ("reference",)
    most_clusters: ClassVar[int] = 100_000
    cluster_members: ClassVar[int] = 128  # as in the smallest of the published pools, of 12.8 million

    def __init__(self, options: Mapping[str, Any]) -> None:
        super().__init__(options)
        if not options.get("reference"):
            raise UsageError("--method image-based needs --reference: a set of what is wanted", "a folder or a store")

    def most(self, pool: Pool) -> int:
        return int(self._there(pool).sum())

    def allocate(self, pool: Pool, size: int | None) -> np.ndarray:
        there = self._there(pool)
        if size is None:
            return there
        return whole(filled(_hits(pool).astype(np.float64), there, size), np.zeros_like(there), there, size)

    def columns(self, pool: Pool) -> dict[str, np.ndarray]:
        return {"hits": _hits(pool)}

    def facts(self, pool: Pool, size: int | None) -> dict[str, Any]:
        hits = _hits(pool)
        return {"reference": {"items": int(hits.sum()), "clusters_hit": int((hits > 0).sum())}}

    def _there(self, pool: Pool) -> np.ndarray:
        """Records of each cluster that is hit, int64 [k]."""
        return np.where(_hits(pool) > 0, pool.sizes, 0)


def _hits(pool: Pool) -> np.ndarray:
    assert pool.hits is not None
    return pool.hits
