"""Sums and principal axes of labelled features, by which the linear methods are solved."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from clipkit.methods.adapters.data import blocks

_BLOCK = 4096  # rows that are widened to f64 at a time
_RANK = 1e-12  # a variance this small beside the largest is rounding


def class_sums(rows: np.ndarray, labels: np.ndarray, classes: int) -> np.ndarray:
    """The sum of each class's rows [n, d], f64 [classes, d]; zeros for a class without any. labels: int64 [n]."""
    sums = np.zeros((classes, rows.shape[1]))
    order = np.argsort(labels, kind="stable")
    starts = np.searchsorted(labels[order], np.arange(classes + 1))
    for label in range(classes):
        sums[label] = rows[order[starts[label] : starts[label + 1]]].sum(axis=0, dtype=np.float64)
    return sums


@dataclass(frozen=True)
class Axes:
    """The principal axes of centred features, r of them: as many as they span.

    mean: f64 [d]. axes: orthonormal columns f64 [d, r]. squares: the sum over the rows of their squared coordinates
    on each axis, f64 [r]. size: the mean squared length of the centred rows (1.0 where all rows are equal), the unit in
    which a ridge is said: the same for one sample a class and for a hundred.
    """

    mean: np.ndarray
    axes: np.ndarray
    squares: np.ndarray
    size: float

    def coordinates(self, rows: np.ndarray) -> np.ndarray:
        """Those of features [n, d] on the axes, f64 [n, r]."""
        out = np.empty((len(rows), len(self.squares)))
        for part, block in _centred(rows, self.mean):
            np.matmul(block, self.axes, out=out[part])
        return out

    def head(self, weights: np.ndarray, bias: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Weights f64 [r, C] on coordinates and a bias f64 [C], as weights [C, d] and bias [C] on features."""
        whole = (self.axes @ weights).T
        return whole, bias - whole @ self.mean


def principal(rows: np.ndarray) -> Axes:
    """The principal axes of features [n, d], from their d x d covariance or the n x n products, what is smaller.

    Both are exact: what a ridge penalises lies in the span of the rows.
    """
    mean = rows.mean(axis=0, dtype=np.float64)
    count, width = rows.shape
    if count < width:
        centred = rows - mean
        squares, left = np.linalg.eigh(centred @ centred.T)
    else:
        gram = np.zeros((width, width))
        for _, block in _centred(rows, mean):
            gram += block.T @ block
        squares, axes = np.linalg.eigh(gram)
    kept = squares > _RANK * max(squares[-1], 0.0)
    squares = squares[kept]
    axes = centred.T @ left[:, kept] / np.sqrt(squares) if count < width else axes[:, kept]
    return Axes(mean, axes, squares, float(squares.sum() / count) or 1.0)


def _centred(rows: np.ndarray, mean: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    for part in blocks(len(rows), _BLOCK):
        yield part, rows[part] - mean
