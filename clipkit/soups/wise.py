"""Between a model and what it was tuned to: (1 - alpha) BASE + alpha TUNED (WiSE-FT, Wortsman et al., 2022)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Final

from clipkit.models.hub_folder import check_target
from clipkit.soups.card import said_of, save
from clipkit.soups.mixing import Terms, mix
from clipkit.soups.recipes import gathered
from clipkit.soups.states import State, check, state

if TYPE_CHECKING:
    from clipkit.soups.measuring import Measure

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
        """What decides: the mean of both figures, or the one there is."""
        return self.target.value if self.others is None else (self.target.value + self.others.value) / 2


def alphas(steps: int, also: float | None = None) -> list[float]:
    """0, 1 / steps, ... 1, and one more if it is none of these."""
    made = {round(step / steps, _DIGITS) for step in range(steps + 1)}
    return sorted(made | (set() if also is None else {also}))


def wise_terms(models: Sequence[State], alpha: float) -> Terms:
    """(1 - alpha) BASE + alpha TUNED; one of them alone, bit for bit, at 0 and 1. models: these two."""
    base, tuned = models
    part = Fraction(alpha)
    return gathered([(1 - part, base), (part, tuned)])


def write(base: str, tuned: str, alpha: float, out: str, tell: Callable[[str], None]) -> dict[str, Any]:
    """Write the model at one alpha, and measure nothing; returns what was made, as JSON.

    base, tuned: names as `states.state` takes them. tell: says a notice. Raises as `mix` and `save` do.
    """
    check_target(out)
    states = [state(base), state(tuned)]
    check(states)
    for notice in dict.fromkeys(notice for one in states for notice in one.notices):
        tell(notice)
    terms = wise_terms(states, alpha)
    return save(out, states[0], mix(terms), {"recipe": "wise", "alpha": alpha, "terms": said_of(terms)})


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
