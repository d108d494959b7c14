"""Quantiles and tops against sorting everything."""

from __future__ import annotations

import math
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipkit.errors import ClipkitError
from clipkit.methods.filters.limits import best, quantile

scores = st.lists(st.sampled_from([-1.0, 0.0, 0.25, 0.3, 0.5, 7.5]) | st.floats(-3, 3), max_size=30)


@given(scores, st.sampled_from([0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0]))
def test_quantile(values: list[float], p: float) -> None:
    got = quantile(np.array(values), p)
    if not values:
        assert got is None
        return
    at = math.floor(Fraction(str(p)) * len(values))
    assert got == sorted(values)[min(at, len(values) - 1)]
    if p < 1:  # so that `>= q(p)` and `< q(p)` part them as p says
        assert sum(v < got for v in values) <= at <= sum(v <= got for v in values)


def test_the_top_three_of_ten() -> None:
    assert quantile(np.arange(10.0), 0.7) == 7.0


@given(scores, st.integers(1, 30), st.booleans(), st.randoms())
def test_top_is_what_sorting_by_score_and_id_gives(values: list[float], k: int, fraction: bool, random: Any) -> None:
    ids = [f"id{number}" for number in range(len(values))]
    random.shuffle(ids)
    top = {"fraction": k / 30} if fraction else {"k": k}
    given_all = np.ones(len(values), bool)
    limit = best(np.array(values), top, lambda: iter(ids), given=given_all)
    count = math.ceil(Fraction(str(k / 30)) * len(values)) if fraction else min(k, len(values))
    naive = sorted(zip([-v for v in values], ids, strict=True))[:count]
    assert {name for _, name in naive} == set(taken(values, ids, limit))
    assert limit["kept"] == count


def taken(values: list[float], ids: list[str], limit: dict[str, Any]) -> Iterator[str]:
    for value, name in zip(values, ids, strict=True):
        at_limit = value == limit["value"] and (limit["last_id"] is None or name <= limit["last_id"])
        if limit["value"] is not None and (value > limit["value"] or at_limit):
            yield name


def test_only_records_with_a_value_take_part() -> None:
    given = np.array([True, False, True, False, True])
    limit = best(np.array([1.0, 1.0, 1.0]), {"k": 2}, lambda: iter("edcba"), given=given)
    assert limit == {"value": 1.0, "last_id": "c", "kept": 2}


def test_datacomps_rule_keeps_one_more_and_ties() -> None:
    values = np.arange(1000) / 1000
    strict = {"fraction": 0.3, "strict": True}
    every = np.ones(1000, bool)
    assert best(values, strict, lambda: iter(()), given=every)["kept"] == 301
    assert best(np.round(values, 2), strict, lambda: iter(()), given=every)["kept"] == 305
    assert best(values, {"fraction": 1.0, "strict": True}, lambda: iter(()), given=every)["kept"] == 1000
    assert best(values, {"fraction": 0.3}, lambda: iter(()), given=every)["kept"] == 300


def test_ties_without_ids_cannot_be_told_apart() -> None:
    every = np.ones(3, bool)
    with pytest.raises(ClipkitError, match="no id to go by"):
        best(np.array([1.0, 1.0, 1.0]), {"k": 2}, lambda: iter(["a", "", "b"]), given=every)
    assert best(np.array([1.0, 1.0, 2.0]), {"k": 3}, lambda: iter(["", "", ""]), given=every)["kept"] == 3
