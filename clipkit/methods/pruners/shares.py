"""A number of seats dealt out to clusters: real shares within bounds, and whole numbers that add up."""

from __future__ import annotations

from typing import Final

import numpy as np

_DIGITS: Final = 6  # to which shares are looked at: what float sums leave over is no remainder


def water_level(aim: np.ndarray, lower: np.ndarray, upper: np.ndarray, total: float) -> float:
    """The level l for which the shares clip(aim + l, lower, upper) add up to `total`.

    They are the point nearest to `aim` that adds up and keeps to the bounds: the solution of the quadratic program
    min |x - aim|^2, sum x = total, lower <= x <= upper, whose Lagrange multiplier l is. Their sum is piecewise linear
    and rising in l, so l is found between two of its 2 k corners, exactly.
    aim, lower, upper: f64 [k], lower <= upper. total: from sum(lower) to sum(upper).
    """
    corners = np.concatenate([lower - aim, upper - aim])
    turns = np.concatenate([np.ones(len(aim)), -np.ones(len(aim))])
    order = np.argsort(corners, kind="stable")
    corners, slopes = corners[order], np.cumsum(turns[order])
    sums = lower.sum() + np.concatenate([[0.0], np.cumsum(slopes[:-1] * np.diff(corners))])
    after = int(np.searchsorted(sums, total))
    if after == 0:
        return float(corners[0])
    if after == len(sums):
        return float(corners[-1])
    return float(corners[after - 1] + (total - sums[after - 1]) / slopes[after - 1])


def filled(weight: np.ndarray, upper: np.ndarray, total: float) -> np.ndarray:
    """Shares f64 [k] in proportion to weights, none above its bound, that add up to `total`.

    weight: f64 [k], from 0; a cluster of weight 0 gets nothing. upper: f64 [k]; total: at most the sum of the bounds of
    those with a weight.
    """
    shares = np.zeros(len(weight))
    some = np.flatnonzero((weight > 0) & (upper > 0))
    fullest = some[np.argsort(upper[some] / weight[some], kind="stable")]  # the first to reach their bound
    held, weights = upper[fullest], weight[fullest]
    left = total - (np.cumsum(held) - held)  # for this one and those after it
    behind = np.cumsum(weights[::-1])[::-1]
    full = held * behind <= weights * left
    bounded = len(full) if full.all() else int(full.argmin())
    shares[fullest[:bounded]] = held[:bounded]
    if bounded < len(fullest):
        shares[fullest[bounded:]] = weights[bounded:] * (left[bounded] / behind[bounded])
    return shares


def whole(shares: np.ndarray, lower: np.ndarray, upper: np.ndarray, total: int) -> np.ndarray:
    """Shares f64 [k] as whole numbers int64 [k] that add up to `total` exactly: by largest remainder, within bounds.

    Remainders are compared to 6 decimals, and ties go to the lower cluster. lower, upper: whole, lower <= shares <=
    upper. Raises ValueError where no whole numbers do that.
    """
    rounded = np.round(shares, _DIGITS)
    seats = np.clip(np.floor(rounded).astype(np.int64), lower, upper)
    remainder = np.round(rounded - seats, _DIGITS)
    while left := total - int(seats.sum()):
        step = 1 if left > 0 else -1
        open_ = np.flatnonzero(seats < upper if left > 0 else seats > lower)
        if not len(open_):
            raise ValueError(f"{total} seats do not fit the bounds")
        first = open_[np.argsort(-step * remainder[open_], kind="stable")][: abs(left)]
        seats[first] += step
        remainder[first] -= step
    return seats
