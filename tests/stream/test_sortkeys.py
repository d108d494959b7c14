"""Keys of bytes sort as values do."""

from __future__ import annotations

from functools import cmp_to_key
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from clipkit.stream.sortkeys import sort_key

NUMBERS = st.one_of(
    st.integers(-(10**40), 10**40),
    st.integers(2**53 - 3, 2**53 + 3),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from([0, -0.0, 10**400, -(10**400), 1.7976931348623157e308, 5e-324, 2**64, 2.0**64]),
)
TEXTS = st.text(st.sampled_from("a\0b\x01\xffé\uffff😀"), max_size=5) | st.text()
SCALARS = st.none() | st.booleans() | NUMBERS | TEXTS
VALUES = SCALARS | st.lists(SCALARS, max_size=3)


def rank(value: Any) -> int:
    kinds = [
        lambda v: v is False,
        lambda v: v is True,
        lambda v: isinstance(v, int | float),
        lambda v: isinstance(v, str),
    ]
    return next((i for i, is_it in enumerate(kinds) if is_it(value)), 6 if value is None else 4)


def compare(a: Any, b: Any) -> int:
    """The order as docs/curation.md states it, worked out on the values."""
    if rank(a) != rank(b):
        return rank(a) - rank(b)
    if isinstance(a, list):
        for one, other in zip(a, b, strict=False):
            if found := compare(one, other):
                return found
        return len(a) - len(b)
    if a is None or isinstance(a, bool):
        return 0
    return (a > b) - (a < b)  # Python compares int and float exactly, and texts by code point


def sign(x: int) -> int:
    return (x > 0) - (x < 0)


@given(VALUES, VALUES)
def test_keys_sort_as_values(a: Any, b: Any) -> None:
    one, other = sort_key(a), sort_key(b)
    assert (one > other) - (one < other) == sign(compare(a, b))


@given(VALUES, VALUES)
def test_descending_is_the_other_way_round_but_for_null(a: Any, b: Any) -> None:
    one, other = sort_key(a, True), sort_key(b, True)
    expected = compare(a, b) if a is None or b is None else compare(b, a)
    assert (one > other) - (one < other) == sign(expected)


@given(st.lists(st.tuples(VALUES, VALUES), max_size=8), st.booleans(), st.booleans())
def test_keys_can_be_joined(pairs: list[tuple[Any, Any]], down: bool, down_too: bool) -> None:
    def one(x: Any, y: Any, descending: bool) -> int:
        return compare(x, y) if not descending or x is None or y is None else compare(y, x)

    def both(x: tuple[Any, Any], y: tuple[Any, Any]) -> int:
        return one(x[0], y[0], down) or one(x[1], y[1], down_too)

    by_key = sorted(pairs, key=lambda pair: sort_key(pair[0], down) + sort_key(pair[1], down_too))
    assert by_key == sorted(pairs, key=cmp_to_key(both))


def test_objects_sort_by_their_json_with_sorted_names() -> None:
    values = [{"a": 2}, {"b": 1}, {"a": 1, "b": 1}, {"b": 1, "a": 1}]
    assert sorted(values, key=sort_key) == [{"a": 1, "b": 1}, {"a": 1, "b": 1}, {"a": 2}, {"b": 1}]
    assert sort_key([9]) < sort_key({}) < sort_key(None)
