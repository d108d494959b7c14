"""k-means over the features of a whole set, as centroids that can be kept: what `cluster` and `prune` share.

Lloyd's iterations (Lloyd, 1982; spherical: Dhillon & Modha, 2001), first on a sample, then over all vectors, a block
at a time: memory is a few times k x d, a block, and some 20 bytes a vector. Nothing hangs on the order of the vectors
or on the number of threads, bitwise: clusters are chosen in f64 where f32 cannot tell, and sums are whole numbers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Final, Literal

import numpy as np

from clipkit.features.centroids import Centroids, Groups
from clipkit.features.vectors import Vectors
from clipkit.stream.hashing import share

Init = Literal["random", "k-means++"]

TWO_LEVELS_FROM: Final = 50_000  # clusters
ITERATIONS: Final = 20  # on the sample, at most
PASSES: Final = 3  # over all vectors, at most, where the sample is a part of them
_TRAINED_ON: Final = 32  # vectors a cluster
_LEAST_SAMPLE: Final = 32_768
_SAMPLE: Final = 1 << 18  # vectors at most
_SEEDED_FROM: Final = 1 << 16  # vectors that k-means++ holds in memory
_BLOCK: Final = 8192
_FIXED: Final = 2.0**32  # sums count in steps of 1 / this: room for 2**31 unit vectors
_SAME: Final = 1e-6  # a vector no farther than this from its centroid is no new centroid


@dataclass(frozen=True, slots=True)
class Fitted:
    """Centroids, and what each vector is assigned to: nearest int32 [n], distance f64 [n].

    sampled: vectors of the sample. passes: those over all vectors that changed something.
    """

    centroids: Centroids
    nearest: np.ndarray
    distance: np.ndarray
    sampled: int
    passes: int

    @property
    def inertia(self) -> float:
        """What the iterations make small: the mean of 1 - cosine, or of the squared Euclidean distance."""
        each = self.distance if self.centroids.spherical else self.distance**2
        return math.fsum(each) / max(len(each), 1)  # exact, so in whatever order


def auto_k(n: int) -> int:
    """round(sqrt(n / 2)), at least 1: the rule of thumb of Mardia, Kent & Bibby (1979)."""
    return max(1, round(math.sqrt(n / 2)))


def assign(centroids: Centroids, vectors: Vectors) -> tuple[np.ndarray, np.ndarray]:
    """The nearest cluster of each vector, int32 [n], and the distance to its centroid, f64 [n]."""
    nearest, distance = np.empty(len(vectors), np.int32), np.empty(len(vectors))
    for start, rows in vectors.blocks(_BLOCK):
        here = slice(start, start + len(rows))
        nearest[here], distance[here] = centroids.assign(rows)
    return nearest, distance


def cluster(
    vectors: Vectors,
    order: np.ndarray,
    k: int,
    *,
    model: str,
    by: str,
    spherical: bool = True,
    init: Init = "k-means++",
    seed: int = 0,
    passes: int | None = None,
) -> Fitted:
    """k clusters (at most n, at least 1) of unit vectors [n, d].

    order: int64 [n], the vectors in an order that hangs on nothing but their ids, so that the result doesn't depend on
    the order of the input. The first 32 k of them, at least 32,768 and at most 262,144 (or k), are the sample: 20
    iterations on it at most. passes: iterations over all vectors after that, fewer if nothing changes any more; None:
    3, or none where the sample is all and there is one level. init: `random` starts from the first k distinct vectors
    of the order, `k-means++` draws them with `seed` from its first 65,536. model, by, spherical: as `Centroids` has
    them.

    A cluster that an iteration finds empty is moved to the vector farthest from its centroid (the earlier in the order
    if two are): none stays empty for long, unless there are fewer distinct vectors than clusters.

    From 50,000 clusters on it works in two levels: round(sqrt(k)) groups are made first, the clusters are shared out
    to them in proportion to their vectors by largest remainder, and each group is clustered by itself. Vectors are then
    assigned as `Centroids.groups` says.
    """
    k = max(min(k, len(vectors)), 1)
    how = _How(model, by, spherical, init, seed)
    train = _trained if k < TWO_LEVELS_FROM else _two_levels
    centroids, sampled = train(vectors, order, k, how)
    if passes is None:
        passes = PASSES if sampled < len(vectors) or centroids.groups else 0
    done = 0
    for _ in range(passes):
        better = _iterate(centroids, vectors, order)
        if np.array_equal(better.rows, centroids.rows):
            break
        centroids, done = better, done + 1
    nearest, distance = assign(centroids, vectors)
    sizes = np.bincount(nearest, minlength=k)
    return Fitted(replace(centroids, sizes=sizes), nearest, distance, sampled, done)


@dataclass(frozen=True, slots=True)
class _How:
    model: str
    by: str
    spherical: bool
    init: Init
    seed: int

    def centroids(self, rows: np.ndarray, groups: Groups | None = None) -> Centroids:
        return Centroids(rows, np.zeros(len(rows), np.int64), self.spherical, self.model, self.by, groups)


def _sample_size(n: int, k: int) -> int:
    return min(n, max(k, min(max(_TRAINED_ON * k, _LEAST_SAMPLE), _SAMPLE)))


def _trained(vectors: Vectors, order: np.ndarray, k: int, how: _How) -> tuple[Centroids, int]:
    """k centroids from the first vectors of the order, all in one level; and how many those are."""
    order = order[: _sample_size(len(order), k)]
    if not len(order):
        return how.centroids(np.zeros((k, vectors.dim), np.float32)), 0
    chosen = _plus_plus(vectors, order, k, how.seed) if how.init == "k-means++" else _first(vectors, order, k)
    centroids = how.centroids(vectors.take(chosen))
    by_place = np.argsort(order)  # so that the sample is read from front to end
    sample, in_order = vectors.only(order[by_place]), np.argsort(by_place)
    for _ in range(ITERATIONS):
        better = _iterate(centroids, sample, in_order)
        if np.array_equal(better.rows, centroids.rows):
            break
        centroids = better
    return centroids, len(order)


def _first(vectors: Vectors, order: np.ndarray, k: int) -> np.ndarray:
    """The first k of the order that are distinct, int64 [k]; then the first again, where there are no more."""
    chosen: dict[bytes, int] = {}
    for start in range(0, len(order), _BLOCK):
        some = order[start : start + _BLOCK]
        for number, row in zip(some.tolist(), vectors.take(some), strict=True):
            chosen.setdefault(row.tobytes(), number)
            if len(chosen) == k:
                return np.array(list(chosen.values()))
    return np.resize(np.array(list(chosen.values())), k)


def _plus_plus(vectors: Vectors, order: np.ndarray, k: int, seed: int) -> np.ndarray:
    """k vectors by k-means++ (Arthur & Vassilvitskii, 2007), int64 [k].

    The first of the order; then each with a probability in proportion to the square of its distance to the nearest of
    those before, which for unit vectors is 2 (1 - cosine).
    """
    order = order[: max(k, _SEEDED_FROM)]
    rows = vectors.take(order)
    chosen = [0]
    apart = np.full(len(rows), np.inf)
    for step in range(1, k):
        # einsum without BLAS: the draws are the same on any number of threads
        np.minimum(apart, 1 - np.einsum("nd,d->n", rows, rows[chosen[-1]]), out=apart)
        apart[apart < _SAME] = 0
        before = np.cumsum(apart)
        if not before[-1]:  # fewer distinct vectors than clusters
            return np.resize(order[chosen], k)
        drawn = share(str(step), seed, "k-means++") * before[-1]
        chosen.append(int(np.searchsorted(before, drawn, side="right")))
    return order[chosen]


def _iterate(centroids: Centroids, vectors: Vectors, order: np.ndarray) -> Centroids:
    """Each centroid at the mean of the vectors nearest to it; empty ones at the farthest vectors.

    Where clusters are in groups an empty one stays where it is: the farthest vector may not look in its group.
    """
    k, dim = centroids.rows.shape
    sums, sizes = np.zeros((k, dim), np.int64), np.zeros(k, np.int64)
    for _, rows in vectors.blocks(_BLOCK):
        _add(sums, sizes, centroids.nearest(rows), rows)
    means = _means(sums, sizes, centroids)
    empty = np.flatnonzero(sizes == 0)
    if len(empty) and centroids.groups is None:
        farthest = _farthest(centroids, vectors, order, len(empty))
        means[empty[: len(farthest)]] = vectors.take(farthest)
    return replace(centroids, rows=means)


def _add(sums: np.ndarray, sizes: np.ndarray, labels: np.ndarray, rows: np.ndarray) -> None:
    """Add rows f32 [n, d] to the sums of their clusters.

    As whole numbers of 2**-32: those of a block add up exactly in f64, and all of them in int64, in whatever order.
    """
    by_label = np.argsort(labels, kind="stable")
    fixed = rows[by_label]
    fixed *= np.float32(_FIXED)  # a power of two: exact
    np.rint(fixed, out=fixed)
    present, starts = np.unique(labels[by_label], return_index=True)
    parts = np.empty((len(present), rows.shape[1]))
    for part, start, end in zip(parts, starts, [*starts[1:], len(rows)], strict=True):
        np.add.reduce(fixed[start:end], axis=0, dtype=np.float64, out=part)  # faster than reduceat
    sums[present] += parts.astype(np.int64)
    sizes += np.bincount(labels, minlength=len(sizes))


def _means(sums: np.ndarray, sizes: np.ndarray, before: Centroids) -> np.ndarray:
    """The centroids f32 [k, d] of sums; where there is no mean, or none with a direction, as they were before."""
    means = before.rows.copy()
    for start in range(0, len(sums), _BLOCK):
        here = slice(start, start + _BLOCK)
        mean = sums[here] / (_FIXED * np.maximum(sizes[here], 1))[:, None]
        length = np.sqrt(np.einsum("kd,kd->k", mean, mean)) if before.spherical else np.ones(len(mean))
        good = (sizes[here] > 0) & (length > _SAME)
        means[here][good] = (mean[good] / length[good, None]).astype(np.float32)
    return means


def _farthest(centroids: Centroids, vectors: Vectors, order: np.ndarray, count: int) -> np.ndarray:
    """The `count` distinct vectors farthest from their centroids, farthest first; fewer where all others are at one."""
    distance = assign(centroids, vectors)[1]
    ranked = order[np.argsort(-distance[order], kind="stable")]
    chosen: dict[bytes, int] = {}
    for start in range(0, len(ranked), _BLOCK):
        some = ranked[start : start + _BLOCK]
        some = some[distance[some] > _SAME]
        for number, row in zip(some.tolist(), vectors.take(some), strict=True):
            chosen.setdefault(row.tobytes(), number)
            if len(chosen) == count:
                break
        if len(chosen) == count or not len(some):
            break
    return np.array(list(chosen.values()), np.int64)


def _two_levels(vectors: Vectors, order: np.ndarray, k: int, how: _How) -> tuple[Centroids, int]:
    """k centroids, those of each group trained on its own vectors; and how many vectors that were in all."""
    coarse, _ = _trained(vectors, order, round(math.sqrt(k)), how)
    group = assign(coarse, vectors)[0]
    seats = shared_out(np.bincount(group, minlength=len(coarse)), k)
    by_group = order[np.argsort(group[order], kind="stable")]  # within a group as in the order
    ends = np.cumsum(np.bincount(group, minlength=len(coarse)))
    parts = []
    for number in np.flatnonzero(seats):
        members = by_group[ends[number - 1] if number else 0 : ends[number]]
        parts.append(_trained(vectors, members, int(seats[number]), how))
    kept = seats > 0
    starts = np.cumsum([0, *seats[kept]])
    rows = np.concatenate([centroids.rows for centroids, _ in parts])
    return how.centroids(rows, Groups(coarse.rows[kept], starts)), sum(sampled for _, sampled in parts)


def shared_out(sizes: np.ndarray, k: int) -> np.ndarray:
    """k seats in proportion to sizes, int64 [g], by largest remainder (Hamilton); equal ones: the lower number.

    None gets more than its size where k is at most their sum.
    """
    seats, rest = np.divmod(k * sizes, sizes.sum())
    seats[np.argsort(-rest, kind="stable")[: k - seats.sum()]] += 1
    return seats
