"""Who gets which record: by hand, and against the rule spelt out over all pairs."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from clipkit.methods.concepts.retrieve import share_out

Pair = tuple[int, int, float]  # record, class, score


def shared(pairs: list[Pair], most: int, ties: list[int] | None = None) -> set[tuple[int, int]]:
    """(record, class) of the pairs taken. ties: of each record; its number where not given."""
    records, classes, scores = (np.array(column) for column in zip(*pairs, strict=True))
    drawn = np.array([(ties or range(100))[record] for record in records], np.uint64)
    taken = share_out(records, classes, scores.astype(float), drawn, most)
    return {(int(records[n]), int(classes[n])) for n in taken}


def by_the_rule(pairs: list[Pair], most: int, ties: list[int]) -> set[tuple[int, int]]:
    """Of all pairs that may still be taken the best, again and again."""
    taken: set[tuple[int, int]] = set()
    while True:
        free = [
            (-score, ties[record], to, record)
            for record, to, score in pairs
            if all(record != other for other, _ in taken) and sum(to == other for _, other in taken) < most
        ]
        if not free:
            return taken
        _, _, to, record = min(free)
        taken.add((record, to))


def test_the_best_class_with_room_gets_it() -> None:
    """Class 0 has two seats: records 0 and 1 take them, so record 2 goes to its second best, and record 3 nowhere."""
    pairs = [(0, 0, 0.9), (1, 0, 0.8), (1, 1, 0.7), (2, 0, 0.6), (2, 1, 0.1), (3, 0, 0.5)]
    assert shared(pairs, 2) == {(0, 0), (1, 0), (2, 1)}
    assert shared(pairs, 1) == {(0, 0), (1, 1)}
    assert shared(pairs, 9) == {(0, 0), (1, 0), (2, 0), (3, 0)}


def test_equal_scores_go_by_tie_and_then_by_class() -> None:
    assert shared([(0, 0, 0.5), (1, 0, 0.5)], 1, [8, 7]) == {(1, 0)}
    assert shared([(0, 1, 0.5), (0, 0, 0.5)], 1) == {(0, 0)}


def test_nothing_to_share() -> None:
    nothing = np.empty(0, int)
    assert not len(share_out(nothing, nothing, nothing.astype(float), nothing.astype(np.uint64), 5))


some_pairs = st.dictionaries(
    st.tuples(st.integers(0, 9), st.integers(0, 3)), st.integers(0, 4).map(lambda score: score / 4), min_size=1
).map(lambda found: [(record, to, score) for (record, to), score in found.items()])


@given(some_pairs, st.integers(1, 4), st.permutations(range(10)), st.randoms())
@settings(deadline=None)
def test_as_the_rule_says_in_any_order(pairs: list[Pair], most: int, ties: list[int], rng: object) -> None:
    found = shared(pairs, most, ties)
    assert found == by_the_rule(pairs, most, ties)
    rng.shuffle(pairs)  # type: ignore[attr-defined]
    assert shared(pairs, most, ties) == found
