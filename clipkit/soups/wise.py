"""How far to go from a model to what it was tuned to (WiSE-FT, Wortsman et al., 2022): the rules that choose alpha."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from clipkit.soups.measuring import Measure

EXACT: Final = 12  # digits of a figure that mean something: 0.1 + 0.2 is 0.3
USUAL: Final = 0.5  # alpha, where nothing is measured
STEPS: Final = 10  # of a sweep
LOSS: Final = 0.01  # elsewhere: what `frugal` allows
_DIGITS: Final = 6


@dataclass(frozen=True)
class Point:
    """What the model at one alpha came to: on the target, and on what may be forgotten, if that is measured."""

    alpha: float
    target: Measure
    others: Measure | None

    @property
    def mean(self) -> float:
        """What decides: the mean of both figures, or the one there is; equal where only rounding differs."""
        both = self.target.value if self.others is None else (self.target.value + self.others.value) / 2
        return round(both, EXACT)


def alphas(steps: int, also: float | None = None) -> list[float]:
    """0, 1 / steps, ... 1, and one more if it is none of these."""
    made = {round(step / steps, _DIGITS) for step in range(steps + 1)}
    return sorted(made | (set() if also is None else {also}))


def suggested(points: Sequence[Point]) -> Point:
    """The point with the best mean of both figures; of equal ones that of the smallest alpha, which forgets least."""
    return max(points, key=lambda point: (point.mean, -point.alpha))


def frugal(points: Sequence[Point], loss: float = LOSS) -> Point | None:
    """The largest alpha at which the others lose at most `loss` of what BASE has; None where they are not measured.

    points: BASE's, at alpha 0, is among them.
    """
    base = min(points, key=lambda point: point.alpha)
    if base.others is None:
        return None
    least = round(base.others.value - loss, EXACT)
    return max(
        (point for point in points if point.others is not None and point.others.value >= least),
        key=lambda point: point.alpha,
    )
