"""Which record of several is rather kept."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

import numpy as np

KEEPS: Final = ("first", "best", "largest", "hard", "easy")


def ranked(keep: str, values: np.ndarray, distance: np.ndarray | None, ids: Callable[[], Iterable[str]]) -> np.ndarray:
    """The numbers of n records, int64 [n], those first that are rather kept.

    keep: `first` in the input; `best`, `largest`: of the highest value; `hard`, `easy`: farthest from, nearest to, the
    centroid of its cluster. What has no value (NaN) comes last; ties go by id, and where ids are equal (or empty) by
    the input's order.
    values, distance: f64 [n]. ids: gives the ids of all n, in order; called only where there are ties.
    """
    n = len(values)
    if keep == "first":
        return np.arange(n)
    if keep in ("hard", "easy"):
        assert distance is not None
        values = distance
    keys = values if keep == "easy" else -values  # NaN sorts last
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    same = (ordered[1:] == ordered[:-1]) | (np.isnan(ordered[1:]) & np.isnan(ordered[:-1]))
    tied = np.zeros(n, bool)
    tied[order[1:][same]] = tied[order[:-1][same]] = True
    if not tied.any():
        return order
    names = np.array([name for name, one in zip(ids(), tied.tolist(), strict=True) if one], object)
    by_name = np.zeros(n, np.int64)
    by_name[np.flatnonzero(tied)] = _places(names)
    return np.lexsort((by_name, keys))


def _places(names: np.ndarray) -> np.ndarray:
    """The place of each name among the sorted; equal names share one."""
    return np.unique(names, return_inverse=True)[1].ravel()
