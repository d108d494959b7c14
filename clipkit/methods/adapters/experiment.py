"""A few-shot experiment: draw the shots, choose, fit, measure, once for each seed, and say what came of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from clipkit.methods.adapters.base import Adapter
from clipkit.methods.adapters.data import Samples
from clipkit.methods.adapters.selection import Selection

if TYPE_CHECKING:
    from clipkit.models.base import Encoder

Encode: TypeAlias = "Callable[[Encoder, Samples], Samples]"
"""The samples as another model sees them: their pictures' features, and the text features of their task, anew."""


@dataclass(frozen=True)
class Sets:
    """What there is to learn from and to measure on.

    validation: what parameters are chosen on; without it some of the support is held out. test: only measured.
    other: labelled images of other classes, with a task of their own (their text features), to measure what is
    forgotten. Features are needed in validation, test and other, also where the method learns from pictures.
    """

    support: Samples
    validation: Samples | None = None
    test: Samples | None = None
    other: Samples | None = None


@dataclass(frozen=True)
class Result:
    """adapter: fitted, that of the first seed. selection: how its parameters were chosen. report: JSON, no timing."""

    adapter: Adapter
    selection: Selection
    report: dict[str, Any]


def run(
    candidates: Sequence[Adapter],
    sets: Sets,
    *,
    shots: int | None = None,
    seeds: Sequence[int] = (0,),
    encode: Encode | None = None,
) -> Result:
    """Fit an adapter for each seed and measure them all.

    candidates: unfitted; copies of them are fitted. One of them, or those among which the best is kept
    (`auto.candidates()` for `--method auto`). shots: samples drawn of each class by hash of their name and the seed,
    those of fewer shots among those of more; None for all. seeds: the task's own seed is put aside for them.
    encode: for methods whose `attach` gives another model (it takes what `attach` gave, and samples).
    Raises UsageError as `Adapter.fit` does.
    """
    raise NotImplementedError
