"""MetaCLIP's formulas: by hand, against slow ones, and over many seeds."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipkit.errors import UsageError
from clipkit.methods.balancers.metaclip import (
    Limits,
    Lists,
    drawn,
    keep_probability,
    limit_of_tail,
    limits_of,
    probabilities,
    solve,
    tail_mass,
)

COUNTS = st.lists(st.integers(0, 40), min_size=1, max_size=12)


def lists_of(records: list[list[int]], languages: list[int] | None = None, names: tuple[str, ...] = ("",)) -> Lists:
    starts = np.cumsum([0, *map(len, records)])
    flat = np.array([entry for record in records for entry in record], np.uint32)
    return Lists(flat, starts, np.array(languages or [0] * len(records), np.uint16), names)


def test_by_hand() -> None:
    counts = np.array([0, 1, 2, 4, 8])
    assert probabilities(counts, 2).tolist() == [1, 1, 1, 0.5, 0.25]
    assert tail_mass(counts, 2) == 1 / 15
    assert tail_mass(counts, 2.5) == 3 / 15
    assert keep_probability([0.5, 0.25]) == 1 - 0.5 * 0.75
    assert keep_probability([]) == 0
    # cumulative shares 1/15, 3/15, 7/15, 15/15
    assert [limit_of_tail(counts, mass) for mass in (0.01, 0.13, 0.14, 0.3, 0.34, 0.73, 0.74)] == [1, 1, 2, 2, 4, 4, 8]


@given(COUNTS, st.floats(0.001, 1))
def test_the_t_of_a_tail_mass_is_the_published_formula(counts: list[int], mass: float) -> None:
    """The first of the sorted counts whose cumulative share is nearest; counts of 0 aside, which would give t = 0."""
    ascending = sorted(count for count in counts if count)
    if not ascending:
        assert limit_of_tail(np.array(counts), mass) == 1
        return
    shares = np.array(list(itertools.accumulate(ascending))) / sum(ascending)
    distances = [abs(share - mass) for share in shares]
    assert limit_of_tail(np.array(counts), mass) == ascending[distances.index(min(distances))]


@given(COUNTS, st.lists(st.lists(st.integers(0, 11), min_size=1, max_size=6), max_size=8), st.floats(0.1, 50))
def test_the_expected_size_is_the_sum_of_the_probabilities(
    counts: list[int], records: list[list[int]], t: float
) -> None:
    records = [[entry % len(counts) for entry in record] for record in records]
    chances = [keep_probability([t / max(counts[entry], t) for entry in record]) for record in records]
    found = lists_of(records).expected({"": np.array(counts)}, Limits({"": t}))
    assert found.total == pytest.approx(sum(chances), abs=1e-8)
    assert found.deviation == pytest.approx(math.sqrt(sum(p * (1 - p) for p in chances)), abs=1e-4)


def test_the_expected_size_hangs_on_no_order_to_the_last_bit() -> None:
    rng = np.random.default_rng(0)
    counts = {"": rng.integers(1, 1000, 50)}
    records = [rng.integers(0, 50, rng.integers(1, 9)).tolist() for _ in range(3000)]
    sizes = {
        lists_of([records[n] for n in rng.permutation(3000)]).expected(counts, Limits({"": 7.3})).total
        for _ in range(5)
    }
    assert len(sizes) == 1


def test_what_is_drawn_over_many_seeds_has_the_probability_of_the_formula() -> None:
    """2,000 seeds, 12 records of up to four entries; 4 standard errors each, and for the number kept together."""
    seeds, chances = 2000, {"dog": 0.1, "cat": 0.35, "red panda": 0.02, "bird": 0.6}
    kept_together = 0
    expected = variance = 0.0
    records = [some for size in (1, 2, 3, 4) for some in itertools.combinations(chances, size)][:12]
    for number, entries in enumerate(records):
        p = keep_probability([chances[entry] for entry in entries])
        kept = sum(any(drawn(f"r{number}", 0, e, seed) < chances[e] for e in entries) for seed in range(seeds))
        assert abs(kept / seeds - p) < 4 * math.sqrt(p * (1 - p) / seeds), (entries, kept / seeds, p)
        kept_together, expected, variance = kept_together + kept, expected + p, variance + p * (1 - p)
    assert abs(kept_together / seeds - expected) < 4 * math.sqrt(variance / seeds)


def test_draws_are_of_the_record_the_caption_the_entry_and_the_seed() -> None:
    base = drawn("a", 0, "dog", 0)
    assert base == drawn(b"a", 0, "dog", 0)
    others = [drawn("b", 0, "dog", 0), drawn("a", 1, "dog", 0), drawn("a", 0, "cat", 0), drawn("a", 0, "dog", 1)]
    assert len({base, *others}) == 5
    assert 0 <= base < 1


@given(st.floats(0.01, 0.99), st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=5), min_size=1, max_size=30))
def test_the_t_solved_for_keeps_what_was_wanted(fraction: float, records: list[list[int]]) -> None:
    lists = lists_of(records)
    counts = {"": np.bincount([entry for record in records for entry in record], minlength=10)}
    wanted = fraction * len(records)

    def expected(t: float) -> float:
        return lists.expected(counts, Limits({"": t})).total

    t = solve(wanted, expected, float(counts[""].max()))
    assert expected(t) == pytest.approx(wanted, abs=2e-3)


def test_where_the_expected_size_jumps_the_nearer_side_is_taken() -> None:
    def steps(t: float) -> float:
        return 10.0 if t >= 3 else 4.0 if t > 0 else 0.0

    assert steps(solve(6, steps, 100)) == 4
    assert steps(solve(8, steps, 100)) == 10
    assert steps(solve(10, steps, 100)) == 10


def test_other_languages_get_the_tail_mass_of_english() -> None:
    counts = {"en": np.array([5, 1, 0, 4]), "de": np.array([100, 10, 20, 70]), "fr": np.array([0, 0, 0, 3])}
    limits = limits_of(counts, {"t": 4.5})
    assert limits.mass == 0.5  # 1 + 4 of 10
    # German: cumulative shares of 10, 20, 70, 100 are .05, .15, .5, 1
    assert limits.by_language == {"en": 4.5, "de": 70, "fr": 3}
    assert limits.t == 4.5
    assert limits_of(counts, {"tail_mass": 0.05}).by_language == {"en": 1, "de": 10, "fr": 3}
    with pytest.raises(UsageError, match="'en'"):
        limits_of({"de": counts["de"]}, {"t": 4})


def test_each_language_has_its_own_probabilities() -> None:
    counts = {"de": np.array([10, 1]), "en": np.array([2, 4])}
    lists = lists_of([[0], [0], [1]], [0, 1, 1], ("de", "en"))
    found = lists.expected(counts, Limits({"de": 1, "en": 2}))
    assert found.total == pytest.approx(0.1 + 1 + 0.5)


def test_lists_are_taken_and_joined() -> None:
    one, other = lists_of([[1, 2], [3]], [0, 1], ("en", "de")), lists_of([[4], [5, 6, 7]], [0, 0], ("de",))
    both = Lists.joined([one, other])
    assert both.names == ("de", "en")
    assert both.entries.tolist() == [1, 2, 3, 4, 5, 6, 7]
    assert both.starts.tolist() == [0, 2, 3, 4, 7]
    assert both.languages.tolist() == [1, 0, 0, 0]
    some = both.take(np.array([3, 0]))
    assert (some.entries.tolist(), some.starts.tolist(), some.languages.tolist()) == (
        [5, 6, 7, 1, 2],
        [0, 3, 5],
        [0, 1],
    )
    assert len(both.take(np.empty(0, np.int64))) == 0
