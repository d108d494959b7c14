"""Several methods tried on what there is, the best of them kept: `--method auto`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from clipkit.errors import UsageError
from clipkit.methods.adapters import selection
from clipkit.methods.adapters.base import Adapter
from clipkit.methods.adapters.data import Samples
from clipkit.methods.adapters.selection import Explored
from clipkit.methods.adapters.tuning import Score, score

# Ahead at its defaults with one image a class, level with prototypes at 2 and 3: mean test accuracy over caltech101,
# clothing and eurosat, 3 draws each, backbone features of `lite`. Figures of auto on these sets are not blind to that.
UNTUNED: Final = "ridge"


@dataclass(frozen=True)
class Candidate:
    """A method that was tried. score: accuracy and minus cross-entropy on samples that its fit didn't see, or None
    where there were none, or it refused: why is in error."""

    adapter: Adapter
    explored: Explored[Adapter] | None
    score: Score | None
    error: str | None = None

    def to_json(self) -> dict[str, Any]:
        """For a report."""
        said: dict[str, Any] = {"method": self.adapter.name}
        if self.score:
            said |= {"accuracy": round(self.score[0], 6), "cross_entropy": _finite(-self.score[1])}
        return said | ({"error": self.error} if self.error else {"chosen": self.adapter.chosen_})


def candidates() -> list[Adapter]:
    """Unfitted, with their defaults: all methods of the registry that say they are cheap enough to be tried."""
    from clipkit.methods import ADAPTERS

    methods: list[type[Adapter]] = ADAPTERS.working()
    return [method() for method in methods if method.tries_many]


def explore(
    adapters: Sequence[Adapter], support: Samples, validation: Samples | None = None
) -> tuple[Explored[Adapter], list[Candidate]]:
    """The adapter with the least cross-entropy on validation or held-out samples, then the best accuracy there, then
    the first; and all that were tried. See `selection.explore`.

    Cross-entropy first: between methods it is less noisy than accuracy. On the same three sets (2 draws each) it chose
    better than accuracy by 1.0, 1.1 and 2.1 points of test accuracy at 4, 8 and 16 shots.

    Where too few samples are there to hold some out, UNTUNED stands if it is among them, else the first: leaving out
    one image after another was worse a guide than that. Raises UsageError where all refuse.
    """
    blind = not (validation is not None and len(validation)) and not len(selection.hold_out(support)[1])
    if blind:
        adapters = sorted(adapters, key=lambda adapter: adapter.name != UNTUNED)
    tried = []
    for adapter in adapters:
        tried.append(_try(adapter, support, validation))
        if blind and tried[-1].explored:
            break
    able = [candidate for candidate in tried if candidate.explored]
    if not able:
        raise UsageError(f"no method can learn from this: {tried[0].error}")
    best = max(able, key=lambda candidate: candidate.score[::-1] if candidate.score else (0.0, 0.0))
    assert best.explored is not None
    return best.explored, tried


def _try(adapter: Adapter, support: Samples, validation: Samples | None) -> Candidate:
    fresh = selection.fresh(adapter)
    try:
        explored = selection.explore(fresh, support, validation)
    except UsageError as error:
        return Candidate(fresh, None, None, error.message)
    if not explored.trials:
        return Candidate(fresh, explored, None)
    ((trial, unseen),) = explored.trials
    return Candidate(fresh, explored, score(trial.logits(unseen.plain), unseen.labels))


def _finite(value: float) -> float | None:
    return round(value, 6) if np.isfinite(value) else None
