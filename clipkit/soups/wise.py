"""Between a model and what it was tuned to: (1 - alpha) BASE + alpha TUNED (WiSE-FT, Wortsman et al., 2022)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from clipkit.errors import UsageError
from clipkit.soups.measuring import Measure

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
        """What decides: the mean of both figures, or the one there is."""
        return self.target.value if self.others is None else (self.target.value + self.others.value) / 2


def check_alpha(alpha: float) -> None:
    """Raise UsageError for what lies beyond both models."""
    if not 0 <= alpha <= 1:
        raise UsageError(f"--alpha {alpha:g}: it is from 0, BASE, to 1, TUNED", "`soup task` goes further than TUNED")


def alphas(steps: int, also: float | None = None) -> list[float]:
    """0, 1 / steps, ... 1, and one more if it is none of these."""
    made = {round(step / steps, _DIGITS) for step in range(steps + 1)}
    return sorted(made | (set() if also is None else {also}))


def weights(alpha: float) -> tuple[float, float]:
    """Of BASE and of TUNED."""
    return 1 - alpha, alpha


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
    least = base.others.value - loss - 1e-9  # 0.8 - 0.01 is not quite 0.79
    return max(
        (point for point in points if point.others is not None and point.others.value >= least),
        key=lambda point: point.alpha,
    )
