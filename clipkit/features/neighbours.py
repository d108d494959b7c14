"""Pairs of near vectors within clusters, in blocks: memory depends neither on how many there are nor on how they fall.

Two vectors are compared where one is at home (its nearest cluster) and the other is assigned, at home or as a visitor.
With one assignment a vector that is the rule of SemDeDup; with more, pairs across the border of two clusters are found.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np

from clipkit.features.clusters import Clusters
from clipkit.features.vectors import Vectors

UNSURE: Final = 1e-5  # f32 products this near to a limit are decided again in float64
_ROWS, _COLUMNS = 1024, 4096  # a block of products: 16 MiB
_AGAIN: Final = 4096  # pairs decided again at once

Pairs = Iterator[tuple[np.ndarray, np.ndarray]]


class Neighbours:
    """Distinct unit vectors with their clusters. Vectors are numbered from 0, as in `vectors`."""

    def __init__(self, vectors: Vectors, clusters: Clusters) -> None:
        self._vectors = vectors
        self.clusters = clusters
        k = len(clusters.centroids)
        self._home = _Members(clusters.nearest[:, :1], k)
        self._visitors = _Members(clusters.nearest[:, 1:], k)

    def __len__(self) -> int:
        return len(self._vectors)

    def pairs(self, limit: float, some: np.ndarray, others: np.ndarray) -> Pairs:
        """Pairs of different vectors whose cosine is over `limit`, one of them in `some`, one in `others`.

        some, others: bool [n]. Yields int64 [m] and int64 [m], of a pair in either order; a pair may come twice.
        """
        for rows, left, columns, right, triangle in self._blocks(some, others):
            products = left @ right.T
            at, to = np.nonzero(products > limit - UNSURE)
            if triangle is not None:  # the same vectors on both sides: each pair once, none with itself
                beyond = to > at + triangle
                at, to = at[beyond], to[beyond]
            sure = products[at, to] > limit + UNSURE
            again = np.flatnonzero(~sure)
            for start in range(0, len(again), _AGAIN):
                few = again[start : start + _AGAIN]
                sure[few] = _cosines(left[at[few]], right[to[few]]) > limit
            one, other = rows[at[sure]], columns[to[sure]]
            different = one != other
            if different.any():
                yield one[different], other[different]

    def nearest_earlier(self, rank: np.ndarray) -> np.ndarray:
        """The highest cosine of each vector with one of lower rank that it is compared with, f64 [n]; -1 without any.

        rank: int64 [n], all different.
        """
        n = len(rank)
        best, which = np.full(n, -2, np.float32), np.full(n, -1)
        everything = np.ones(n, bool)
        for rows, left, columns, right, _ in self._blocks(everything, everything):
            products = left @ right.T
            products[rows[:, None] == columns] = -2
            before = rank[columns] < rank[rows][:, None]
            _improve(best, which, rows, columns, np.where(before, products, np.float32(-2)))
            _improve(best, which, columns, rows, np.where(before, np.float32(-2), products).T)
        cosines = np.full(n, -1.0)
        found = np.flatnonzero(which >= 0)
        for start in range(0, len(found), _AGAIN):
            few = found[start : start + _AGAIN]
            cosines[few] = _cosines(self._vectors.take(few), self._vectors.take(which[few]))
        return cosines

    def compared(self, one: np.ndarray, other: np.ndarray) -> np.ndarray:
        """Whether each pair (one, other) is compared in some cluster, bool."""
        nearest = self.clusters.nearest
        return np.asarray(
            (nearest[one] == nearest[other, :1]).any(axis=1) | (nearest[other] == nearest[one, :1]).any(axis=1)
        )

    def audit(self, limit: float, chosen: np.ndarray) -> tuple[int, int]:
        """All pairs over `limit` that some vectors are in, found by comparing those with every vector.

        chosen: int64, which vectors. Returns how many pairs there are, and how many of them the clusters compare.
        """
        there = found = 0
        for begin in range(0, len(chosen), _ROWS):
            few = chosen[begin : begin + _ROWS]
            left = self._vectors.take(few)
            for start, right in self._vectors.blocks(_COLUMNS):
                at, to = np.nonzero(left @ right.T > limit)
                one, other = few[at], to + start
                real = one != other
                there += int(real.sum())
                found += int(self.compared(one[real], other[real]).sum())
        return there, found

    def _blocks(
        self, some: np.ndarray, others: np.ndarray
    ) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, int | None]]:
        """Blocks of vectors to compare: numbers and rows of one side, numbers and rows of the other.

        The last says where both sides are parts of one list: how much further the columns start than the rows do
        (negative), so that column c is row r where c == r + that; only what lies beyond is a new pair.
        """
        same = some is others or bool((some == others).all())
        for c in range(len(self.clusters.centroids)):
            home, visitors = self._home[c], self._visitors[c]
            if same:
                chosen = home[some[home]]
                yield from self._rectangle(chosen, chosen, triangle=True)
                yield from self._rectangle(chosen, visitors[some[visitors]])
                continue
            few = home[some[home]]
            if len(few) or some[visitors].any():
                yield from self._rectangle(few, home[others[home]])
                yield from self._rectangle(few, visitors[others[visitors]])
                yield from self._rectangle(home[others[home]], visitors[some[visitors]])

    def _rectangle(
        self, rows: np.ndarray, columns: np.ndarray, *, triangle: bool = False
    ) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, int | None]]:
        if not len(rows) or not len(columns):
            return
        for top in range(0, len(rows), _ROWS):
            here = rows[top : top + _ROWS]
            left = self._vectors.take(here)
            for start in range(top if triangle else 0, len(columns), _COLUMNS):
                there = columns[start : start + _COLUMNS]
                yield here, left, there, self._vectors.take(there), top - start if triangle else None


class _Members:
    """The vectors of each cluster, ascending."""

    def __init__(self, assigned: np.ndarray, k: int) -> None:
        flat = assigned.ravel()
        self._order = np.argsort(flat, kind="stable") // max(assigned.shape[1], 1)
        self._starts = np.searchsorted(np.sort(flat), np.arange(k + 1))

    def __getitem__(self, c: int) -> np.ndarray:
        return np.asarray(self._order[self._starts[c] : self._starts[c + 1]])


def _improve(best: np.ndarray, which: np.ndarray, rows: np.ndarray, columns: np.ndarray, products: np.ndarray) -> None:
    """Take over the best product of each row, where it is better than what was known."""
    at = products.argmax(axis=1)
    value = products[np.arange(len(rows)), at]
    better = value > best[rows]
    best[rows[better]], which[rows[better]] = value[better], columns[at[better]]


def _cosines(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Row by row, in float64 and without BLAS: f64 [n]."""
    return np.asarray(np.einsum("nd,nd->n", one.astype(np.float64), other.astype(np.float64)))
