"""Spherical k-means, and for each vector the clusters it is nearest to."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from clipkit.features.vectors import Vectors

ITERATIONS: Final = 10
SEED: Final = 1234
ONE_CLUSTER: Final = 32_768  # up to so many vectors all pairs cost less than clusters do
_TRAINED_ON: Final = 32  # vectors a cluster
_SAMPLE: Final = 1 << 18  # vectors at most
_BLOCK: Final = 8192


@dataclass(frozen=True, slots=True)
class Clusters:
    """centroids: unit rows f32 [k, d]. nearest: int32 [n, a], the a nearest clusters of each vector, nearest first.

    distance: f64 [n], 1 - cosine to the nearest centroid.
    """

    centroids: np.ndarray
    nearest: np.ndarray
    distance: np.ndarray


def default_k(n: int) -> int:
    """One cluster up to 32,768 vectors, then round(4 sqrt(n)): 4,000 for a million.

    With it training, assigning and comparing grow alike, with n sqrt(n).
    """
    return 1 if n <= ONE_CLUSTER else round(4 * math.sqrt(n))


def cluster(vectors: Vectors, order: np.ndarray, k: int, assign: int) -> Clusters:
    """Spherical k-means (faiss; 10 iterations, seed 1234) of distinct unit vectors, each assigned to `assign` clusters.

    order: int64 [n], the vectors in an order that hangs on nothing but themselves, such as that of their digests. The
    first 32 k of them, at least 32,768 and at most 262,144 (or k), are trained on, so that the result doesn't depend on
    the order of the input; nor does it on the number of threads.
    """
    n = len(vectors)
    k = max(min(k, n), 1)
    trained_on = min(n, max(k, min(max(_TRAINED_ON * k, ONE_CLUSTER), _SAMPLE)))
    centroids = _train(vectors.take(order[:trained_on]), k)
    nearest = np.zeros((n, min(assign, k)), np.int32)
    distance = np.empty(n)
    index = _index(centroids) if k > 1 else None
    for start, rows in vectors.blocks(_BLOCK):
        here = slice(start, start + len(rows))
        if index is not None:
            nearest[here] = index.search(rows, nearest.shape[1])[1]
        own = centroids[nearest[here, 0]].astype(np.float64)
        # einsum without BLAS, rounded: the order by distance is the same on any machine
        distance[here] = np.round(1 - np.einsum("nd,nd->n", rows.astype(np.float64), own), 12)
    return Clusters(centroids, nearest, distance)


def _train(sample: np.ndarray, k: int) -> np.ndarray:
    """Unit centroids f32 [k, d]."""
    if k == 1:
        mean = sample.sum(axis=0, dtype=np.float64)
        length = np.sqrt((mean * mean).sum())
        return np.array([mean / (length or 1.0)], np.float32)
    import faiss

    kmeans = faiss.Kmeans(
        sample.shape[1],
        k,
        niter=ITERATIONS,
        seed=SEED,
        spherical=True,
        min_points_per_centroid=1,
        max_points_per_centroid=len(sample),  # all of the sample
    )
    kmeans.train(sample)
    return np.array(kmeans.centroids, np.float32)


def _index(centroids: np.ndarray) -> Any:
    import faiss

    index = faiss.IndexFlatIP(centroids.shape[1])
    index.add(centroids)
    return index
