"""k-means over the features of a whole set, as centroids that can be kept: what `cluster` and `prune` share."""

from __future__ import annotations

from typing import Final

import numpy as np

from clipkit.features.centroids import Centroids
from clipkit.features.clusters import cluster
from clipkit.features.vectors import Vectors

_BLOCK: Final = 8192


def fit(vectors: Vectors, order: np.ndarray, k: int, *, model: str, by: str, spherical: bool = True) -> Centroids:
    """Centroids of unit vectors [n, d].

    order: int64 [n], the vectors in an order that hangs on nothing but their ids, so that the result doesn't depend on
    the order of the input. model, by: as `Centroids` has them.
    """
    found = cluster(vectors, order, k, 1)
    sizes = np.bincount(found.nearest[:, 0], minlength=len(found.centroids))
    return Centroids(found.centroids, sizes, spherical, model, by)


def assign(centroids: Centroids, vectors: Vectors) -> tuple[np.ndarray, np.ndarray]:
    """The nearest cluster of each vector, int32 [n], and the distance to its centroid, f64 [n]."""
    nearest, distance = np.empty(len(vectors), np.int32), np.empty(len(vectors))
    for start, rows in vectors.blocks(_BLOCK):
        here = slice(start, start + len(rows))
        nearest[here], distance[here] = centroids.assign(rows)
    return nearest, distance
