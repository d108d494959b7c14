"""What all records decide together: quantiles of a field, and where the best part by a field begins."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Any

import numpy as np

from clipkit.errors import ClipkitError


def quantile(values: np.ndarray, p: float) -> float | None:
    """q(p) of n finite values f64 [n]: of the sorted values the one at floor(p n), counted from 0; q(1) is the largest.

    So `>= q(p)` holds for n - floor(p n) of them and `< q(p)` for floor(p n), but for ties. None where there is none.
    p is taken as the decimal number it is written as: q(0.7) of ten values is the eighth.
    """
    if not len(values):
        return None
    at = min(math.floor(_exact(p) * len(values)), len(values) - 1)
    return float(np.partition(values, at)[at])


def best(
    values: np.ndarray, top: dict[str, Any], ids: Callable[[], Iterator[str]], *, given: np.ndarray
) -> dict[str, Any]:
    """Where the top of n values f64 [n] ends: {value, last_id, kept}.

    In it is whatever is above `value`, and at `value` what has an id up to `last_id` (None: all of it).

    top: {k} or {fraction}, which is ceil(fraction n); or with {strict} DataComp's rule for a fraction: all values from
    the one at int(n fraction) of the descending values on, so one more than it says, and ties.
    ids: the ids of all records; given: which of them have a value, bool [all].
    Raises ClipkitError where records without an id would have to be told apart.
    """
    count = len(values)
    if not count:
        return {"value": None, "last_id": None, "kept": 0}
    if top.get("strict"):
        at = min(int(count * top["fraction"]), count - 1)
        limit = -float(np.partition(-values, at)[at])
        return {"value": limit, "last_id": None, "kept": int((values >= limit).sum())}
    kept = min(top["k"] if "k" in top else math.ceil(_exact(top["fraction"]) * count), count)
    limit = -float(np.partition(-values, kept - 1)[kept - 1])
    tied = values == limit
    wanted = kept - int((values > limit).sum())
    if wanted == tied.sum():
        return {"value": limit, "last_id": None, "kept": kept}
    places = np.flatnonzero(given)[tied]
    names = _at(ids(), places)
    last = heapq.nsmallest(wanted, names)[-1]
    if not last or "" in _at(ids(), places):
        raise ClipkitError(
            f"{len(places):,} records have {limit:g}, where the top ends, and some of them have no id to go by",
            "give them ids, or a field with fewer ties",
        )
    return {"value": limit, "last_id": last, "kept": kept}


def _at(names: Iterator[str], places: np.ndarray) -> Iterator[str]:
    """The names at ascending places."""
    wanted = iter(places.tolist())
    place = next(wanted, None)
    for number, name in enumerate(names):
        if number == place:
            yield name
            place = next(wanted, None)


def _exact(fraction: float) -> Fraction:
    """A number as it is written: 0.3 is three tenths, which no float is."""
    return Fraction(str(fraction))
