"""L-BFGS for smooth convex functions, in numpy alone.

scipy's brings a BLAS of its own, whose threads and those of numpy's, which work out the loss, wait for one another at
each step: the same fit takes several times as long.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

import numpy as np

_REMEMBERED: Final = 10  # steps, by which curvature is judged
_ENOUGH: Final = 1e-4  # of what the slope promises a step must fall
_FLATTER: Final = 0.9  # of the slope may be left after it
_TRIES: Final = 50  # for the length of a step


def minimise(
    loss: Callable[[np.ndarray], tuple[float, np.ndarray]],
    start: np.ndarray,
    *,
    steps: int,
    slope_below: float,
    fall_below: float,
) -> tuple[np.ndarray, int]:
    """Where a convex function is least, and the steps there (Liu and Nocedal, 1989; lengths by bisection).

    loss: value and gradient, an array of its own, at f64 [k]. It ends after `steps`, where no part of the gradient is
    above slope_below, where a step falls by less than fall_below of the value, or where rounding hides the way down.
    """
    at, (value, slope) = start, loss(start)
    pairs: deque[tuple[np.ndarray, np.ndarray, float]] = deque(maxlen=_REMEMBERED)
    for step in range(steps):
        if np.abs(slope).max(initial=0.0) <= slope_below:
            return at, step
        way = _downhill(slope, pairs)
        promised = float(slope @ way)
        length, low, high = 1.0 if pairs else min(1.0, 1.0 / float(np.linalg.norm(slope))), 0.0, np.inf
        for _ in range(_TRIES):
            move = length * way
            there, turned = loss(at + move)
            if not there <= value + _ENOUGH * length * promised:
                high = length
            elif turned @ way < _FLATTER * promised:
                low = length
            else:
                break
            length = (low + high) / 2 if high < np.inf else 2 * low
        else:
            return at, step
        turn = turned - slope
        pairs.append((move, turn, float(move @ turn)))
        fell, at, value, slope = value - there, at + move, there, turned
        if fell <= fall_below * max(abs(value), 1.0):
            return at, step + 1
    return at, steps


def _downhill(slope: np.ndarray, pairs: deque[tuple[np.ndarray, np.ndarray, float]]) -> np.ndarray:
    """Minus the gradient, divided by the curvature that the last steps found."""
    way = -slope
    shares = []
    for move, turn, product in reversed(pairs):
        share = float(move @ way) / product
        way -= share * turn
        shares.append(share)
    if pairs:
        _, turn, product = pairs[-1]
        way *= product / float(turn @ turn)
    for (move, turn, product), share in zip(pairs, reversed(shares), strict=True):
        way += (share - float(turn @ way) / product) * move
    return way
