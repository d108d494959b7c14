"""Accuracy against how often a concept was seen: a line over log10 of its count (Udandarao et al., 2024)."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Final

import numpy as np

RESAMPLES: Final = 2000
LEVEL: Final = 0.95

Interval = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Fit:
    """accuracy = intercept + slope * log10(count), by least squares over n classes, each of which weighs the same.

    None: there is no such number; of a line where fewer than two different counts are left, of an interval where fewer
    than three classes are, of a correlation where all accuracies are the same.
    slope_ci, intercept_ci: percentile intervals of the bootstrap. r, rho: Pearson's and Spearman's correlation.
    """

    n: int
    slope: float | None = None
    intercept: float | None = None
    slope_ci: Interval | None = None
    intercept_ci: Interval | None = None
    r: float | None = None
    rho: float | None = None


def fit(counts: np.ndarray, accuracies: np.ndarray, *, seed: int, resamples: int = RESAMPLES) -> Fit:
    """The line through classes of these counts [n], each above 0, and accuracies f64 [n].

    Classes are drawn with replacement `resamples` times; the draws are a hash of the seed and their number, so
    the order of the classes is the caller's to fix.
    """
    seen, right = np.log10(np.asarray(counts, np.float64)), np.asarray(accuracies, np.float64)
    line = _line(seen, right)
    if line is None:
        return Fit(len(seen))
    low, high = _bootstrap(seen, right, seed, resamples) if len(seen) > 2 else (None, None)
    return Fit(len(seen), *line, low, high, correlation(seen, right), correlation(_ranks(seen), _ranks(right)))


def correlation(x: np.ndarray, y: np.ndarray) -> float | None:
    """Pearson's correlation of two f64 [n]; None where one of them never changes."""
    if x.min() == x.max() or y.min() == y.max():
        return None
    x, y = x - x.mean(), y - y.mean()
    return float(np.clip((x * y).sum() / np.sqrt((x * x).sum() * (y * y).sum()), -1, 1))


def _line(x: np.ndarray, y: np.ndarray) -> tuple[float, float] | None:
    """(slope, intercept) of the least squares line; None where no two x differ."""
    if not len(x) or x.min() == x.max():
        return None
    off = x - x.mean()
    slope = float((off * (y - y.mean())).sum() / (off * off).sum())
    return slope, float(y.mean() - slope * x.mean())


def _bootstrap(x: np.ndarray, y: np.ndarray, seed: int, resamples: int) -> tuple[Interval | None, Interval | None]:
    """Intervals of slope and intercept over draws of n pairs; a draw in which no two x differ has no line and is left
    out."""
    drawn = (_draw(len(x), seed, number) for number in range(resamples))
    lines = [line for some in drawn if (line := _line(x[some], y[some])) is not None]
    if not lines:
        return None, None
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(np.array(lines), [tail, 1 - tail], axis=0)
    return (float(low[0]), float(high[0])), (float(low[1]), float(high[1]))


def _draw(n: int, seed: int, number: int) -> np.ndarray:
    """n numbers below n, i64, as a hash says."""
    data = hashlib.shake_128(b"curve\0%d\0%d" % (seed, number)).digest(4 * n)
    below = (np.frombuffer(data, "<u4").astype(np.uint64) * np.uint64(n)) >> np.uint64(32)
    return below.astype(np.int64)


def _ranks(values: np.ndarray) -> np.ndarray:
    """Ranks from 1, f64 [n]; equal values share the mean of theirs."""
    _, place, sizes = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(sizes)
    mean: np.ndarray = (last - (sizes - 1) / 2)[place]
    return mean
