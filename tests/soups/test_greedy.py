"""The rule, apart from any model: what is tried in which order, and what is taken."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from clipkit.soups.greedy import greedy
from clipkit.soups.measuring import TOP1, Measure


def measure(value: float) -> Measure:
    """A figure of 100 pictures."""
    hits = np.arange(100) < round(100 * value)
    return Measure(TOP1, 100, lambda weights: float((weights * hits).sum() / weights.sum()))


def test_the_second_hurts_and_the_third_helps() -> None:
    soups = {(2, 0): 0.70, (2, 1): 0.85}
    asked = []

    def soup(numbers: Sequence[int]) -> Measure:
        asked.append(tuple(numbers))
        return measure(soups[tuple(numbers)])

    tried = list(greedy([measure(0.75), measure(0.6), measure(0.8)], soup))
    assert asked == [(2, 0), (2, 1)]
    assert [(one.number, one.alone.value, one.together.value, one.taken) for one in tried] == [
        (2, 0.8, 0.8, True),
        (0, 0.75, 0.7, False),
        (1, 0.6, 0.85, True),
    ]


def test_what_is_as_good_is_left_out_and_equal_models_come_as_they_are_named() -> None:
    tried = list(greedy([measure(0.5)] * 3, lambda numbers: measure(0.5)))
    assert [(one.number, one.taken) for one in tried] == [(0, True), (1, False), (2, False)]


def test_what_rounding_alone_makes_better_is_left_out() -> None:
    """A mean of recalls, .1 + .2 and .3 + 0."""
    first, second = (Measure("r@1", 10, lambda weights, some=some: sum(some)) for some in ((0.3, 0.0), (0.1, 0.2)))
    assert sum((0.1, 0.2)) > 0.3
    assert [one.taken for one in greedy([first, first], lambda numbers: second)] == [True, False]


def test_one_model_is_the_soup() -> None:
    (only,) = greedy([measure(0.0)], lambda numbers: measure(1.0))
    assert only.taken and only.together is only.alone


_ALONE = st.lists(st.integers(0, 100), min_size=1, max_size=6)


@given(_ALONE, st.randoms(use_true_random=False))
def test_never_below_the_best_single_and_each_taken_makes_it_better(alone: list[int], random: object) -> None:
    soups: dict[frozenset[int], Measure] = {}

    def soup(numbers: Sequence[int]) -> Measure:
        return soups.setdefault(frozenset(numbers), measure(random.randint(0, 100) / 100))  # type: ignore[attr-defined]

    tried = list(greedy([measure(value / 100) for value in alone], soup))
    assert sorted(one.number for one in tried) == list(range(len(alone)))
    taken = [one for one in tried if one.taken]
    values = [one.together.value for one in taken]
    assert values == sorted(set(values))
    assert values[0] == max(alone) / 100 and taken[0].number == alone.index(max(alone))
    best = values[0]
    for one in tried[1:]:
        assert one.taken == (one.together.value > best)
        best = max(best, one.together.value)
