"""Several methods tried on what there is, the best of them kept: `--method auto`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np

from clipkit.errors import UsageError
from clipkit.methods.adapters import selection
from clipkit.methods.adapters.base import Adapter
from clipkit.methods.adapters.data import Samples
from clipkit.methods.adapters.selection import Explored
from clipkit.methods.adapters.tuning import Score, score

CROSS: Final = "cross-validated"


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

    methods: list[type[Adapter]] = [ADAPTERS.get(entry.name) for entry in ADAPTERS]
    return [method() for method in methods if method.tries_many]


def explore(
    adapters: Sequence[Adapter], support: Samples, validation: Samples | None = None
) -> tuple[Explored[Adapter], list[Candidate]]:
    """The adapter with the best accuracy on validation or held-out samples, then the least cross-entropy there, then
    the first; and all that were tried. See `selection.explore`.

    Where classes have too few samples to hold some out, methods are compared by leaving out one after another; with
    one of each class there is nothing to compare them on, and the first stands. Raises UsageError where all refuse.
    """
    tried = [_try(adapter, support, validation) for adapter in adapters]
    able = [candidate for candidate in tried if candidate.explored]
    if not able:
        raise UsageError(f"no method can learn from this: {tried[0].error}")
    best = max(able, key=lambda candidate: candidate.score or (0.0, 0.0))
    assert best.explored is not None
    return best.explored, tried


def _try(adapter: Adapter, support: Samples, validation: Samples | None) -> Candidate:
    fresh = selection.fresh(adapter)
    try:
        explored = selection.explore(fresh, support, validation)
        trials = explored.trials or selection.cross_validate(adapter, support)
    except UsageError as error:
        return Candidate(fresh, None, None, error.message)
    if not trials:
        return Candidate(fresh, explored, None)
    logits = np.vstack([fitted.logits(samples.plain) for fitted, samples in trials])
    labels = np.concatenate([samples.labels for _, samples in trials])
    return Candidate(fresh, replace(explored, trials=trials), score(logits, labels))


def _finite(value: float) -> float | None:
    return round(value, 6) if np.isfinite(value) else None
