"""The search for parameters on validation data: coarse, then finer around the best; and the measures it goes by.

The original repositories walk grids (Tip-Adapter 200 x 20, SuS-X 200 x 20 x 50 points); three levels of a few points
find what they find, since accuracy over these parameters is flat near its top.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

Score: TypeAlias = tuple[float, float]  # accuracy, minus cross-entropy: the second decides between equals
_LEVELS = 2  # of refinement
_FINE = 5  # points of a finer level
_GOLDEN = (5**0.5 - 1) / 2


@dataclass(frozen=True)
class Axis:
    """The range of one parameter. log: points are spaced by ratio (low above 0). zero: 0 is tried too."""

    low: float
    high: float
    points: int = 9
    log: bool = True
    zero: bool = False

    def coarse(self) -> np.ndarray:
        """The first points, ascending."""
        spread = np.geomspace if self.log else np.linspace
        points = spread(self.low, self.high, self.points)
        return np.concatenate([[0.0], points]) if self.zero else points

    def around(self, best: float, level: int) -> np.ndarray:
        """Points around the best so far, within one step of the level before."""
        if best == 0 and self.zero:
            return np.array([0.0])
        step = 2.0 / (_FINE - 1)  # each level looks at one step of the last one to either side
        reach = step**level
        if self.log:
            width = (np.log(self.high) - np.log(self.low)) / (self.points - 1) * reach
            points = np.exp(np.log(best) + np.linspace(-width, width, _FINE))
        else:
            width = (self.high - self.low) / (self.points - 1) * reach
            points = best + np.linspace(-width, width, _FINE)
        points[_FINE // 2] = best
        inside: np.ndarray = np.unique(np.clip(points, self.low, self.high))
        return inside


@dataclass(frozen=True)
class Chosen:
    """alpha: the weight on the head. outer: the head's own parameter, where it has one. score: on the validation set.

    tried: how many combinations were looked at.
    """

    alpha: float
    outer: float | None
    score: Score
    tried: int


def tune(
    base: np.ndarray,
    head: Callable[[float], np.ndarray],
    labels: np.ndarray,
    alpha: Axis,
    outer: Axis | None = None,
    *,
    fixed: float = 0.0,
) -> Chosen:
    """The best `base + alpha * head(outer)` for labels int64 [n]: by accuracy, then cross-entropy, then small alpha.

    base, and what head gives: logits [n, C]. head is asked once for each point of `outer`; without that once, with
    `fixed`. alpha: its range; low == high holds it fixed.
    """
    found: dict[tuple[float, float], Score] = {}

    def look(outers: np.ndarray, alphas: np.ndarray) -> None:
        for point in outers.tolist():
            missing = [weight for weight in alphas.tolist() if (weight, point) not in found]
            if missing:
                own = head(point)
                for weight in missing:
                    found[weight, point] = score(base + weight * own if weight else base, labels)

    def best() -> tuple[float, float]:
        return max(found, key=lambda at: (*found[at], -at[0], -at[1]))

    look(outer.coarse() if outer else np.array([fixed]), _points(alpha))
    for level in range(_LEVELS):
        weight, point = best()
        near = np.array([weight]) if alpha.low == alpha.high else alpha.around(weight, level)
        look(outer.around(point, level) if outer else np.array([fixed]), near)
    weight, point = best()
    return Chosen(weight, point if outer else None, found[weight, point], len(found))


def _points(axis: Axis) -> np.ndarray:
    return np.array([axis.low]) if axis.low == axis.high else axis.coarse()


def score(logits: np.ndarray, labels: np.ndarray) -> Score:
    """Accuracy, and minus the mean cross-entropy, of logits [n, C]."""
    return accuracy(logits, labels), -cross_entropy(logits, labels)


def temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """What logits [n, C] are divided by so that their softmax is as probable as it says (Guo et al., "On Calibration
    of Modern Neural Networks", 2017): the least cross-entropy on samples that were not learned from.

    The truth counts as certain but for 1 / (n + 2), spread over all classes, in the manner of Platt (1999): else a few
    samples that are all right would ask for certainty. 0.01 to 10,000.
    """
    doubt = 1 / (len(labels) + 2)

    def loss(log: float) -> float:
        divided = logits / np.exp(log)
        rest = float((np.log(np.exp(divided - divided.max(axis=1, keepdims=True)).sum(axis=1))).mean())
        rest += float((divided.max(axis=1) - divided.mean(axis=1)).mean())  # against all classes alike
        return (1 - doubt) * cross_entropy(divided, labels) + doubt * rest

    low, high = np.log(0.01), np.log(1e4)  # the loss has one dip: golden section
    inner = [high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)]
    at = [loss(inner[0]), loss(inner[1])]
    while high - low > 1e-3:
        if at[0] <= at[1]:
            high, inner[1], at[1] = inner[1], inner[0], at[0]
            inner[0] = high - _GOLDEN * (high - low)
            at[0] = loss(inner[0])
        else:
            low, inner[0], at[0] = inner[0], inner[1], at[1]
            inner[1] = low + _GOLDEN * (high - low)
            at[1] = loss(inner[1])
    return float(np.exp((low + high) / 2))


def accuracy(logits: np.ndarray, labels: np.ndarray) -> float:
    """The part of the rows whose label has the highest logit; of equals the first class counts. NaN without rows."""
    return float((logits.argmax(axis=1) == labels).mean()) if len(labels) else float("nan")


def cross_entropy(logits: np.ndarray, labels: np.ndarray) -> float:
    """Mean -log softmax(logits)[label], in nats; NaN without rows."""
    if not len(labels):
        return float("nan")
    top = logits.max(axis=1)
    mass = np.exp(logits - top[:, None]).sum(axis=1)
    return float((np.log(mass) + top - logits[np.arange(len(labels)), labels]).mean())
