"""The table of seen ids against a dict."""

from __future__ import annotations

from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipkit.stream import ids
from clipkit.stream.ids import HashTable, SeenIds, UniqueIds

words = st.integers(0, 2**64 - 1) | st.integers(0, 8) | st.integers(0, 8).map(lambda n: n * 1024)  # colliding slots
steps = st.lists(st.tuples(st.sampled_from(["get", "set", "setdefault"]), words, words), max_size=200)


@given(steps)
def test_is_a_dict_of_words(steps: list[tuple[str, int, int]]) -> None:
    table, model = HashTable(), dict[int, int]()
    for step, key, value in steps:
        if step == "get":
            assert table.get(key) == model.get(key)
        elif step == "set":
            table.set(key, value)
            model[key] = value
        else:
            assert table.setdefault(key, value) == model.get(key)
            model.setdefault(key, value)
    assert len(table) == len(model)
    assert all(table.get(key) == value for key, value in model.items())


def test_grows_and_stays_small() -> None:
    table = HashTable()
    keys = [(n * 0x9E3779B97F4A7C15) % 2**64 for n in range(100_000)]
    for n, key in enumerate(keys):
        table.set(key, n)
    assert [table.get(key) for key in keys] == list(range(100_000))
    assert table.get(1) is None
    assert table.nbytes <= 48 * len(table)


def test_seen_ids_remember_the_first() -> None:
    seen = SeenIds()
    assert seen.add("a", 7) is None
    assert seen.add("b", 8) is None
    assert seen.add("a", 9) == 7
    seen.put("a", 10)
    assert seen.add("a", 11) == 10
    assert "a" in seen and "c" not in seen and len(seen) == 2


@pytest.mark.parametrize("few", [0, 3, 1 << 19])  # of ids in a set before all move to the table
@given(
    batches=st.lists(st.lists(st.text("abc", min_size=1, max_size=3), min_size=1, max_size=6), max_size=8),
    ordered=st.booleans(),
)
def test_ids_in_bulk_are_found_again_wherever_they_came(few: int, batches: list[list[str]], ordered: bool) -> None:
    unique, seen = UniqueIds(), dict[str, int]()
    place = 0
    with patch.object(ids, "_FEW", few):
        for names in batches:
            names = sorted(names) if ordered else names
            places = range(place, place + len(names))
            new = len(set(names)) == len(names) and not set(names) & set(seen)
            assert unique.add_all(names, places) == new
            if new:
                seen |= zip(names, places, strict=True)
            place += len(names)
        for name, where in seen.items():
            assert unique.add(name, 99) == where
        assert unique.add("other", 7) is None
