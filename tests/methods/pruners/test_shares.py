"""Shares: the level that solves the quadratic program, proportions under bounds, whole numbers that add up."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clipkit.methods.pruners.shares import filled, water_level, whole

seeds = st.integers(0, 2**32 - 1).map(np.random.default_rng)


def problem(rng: np.random.Generator, k: int, most: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """Aims that add up to a total, bounds, and the total, which is feasible."""
    upper = rng.integers(0, most + 1, k)
    lower = np.minimum(rng.integers(0, 3), upper)
    total = int(rng.integers(lower.sum(), upper.sum() + 1))
    return rng.dirichlet(np.full(k, 0.5)) * total, lower, upper, total


@settings(max_examples=300, deadline=None)
@given(seeds, st.integers(1, 30), st.sampled_from([3, 100, 10**7]))
def test_the_level_meets_the_conditions_of_karush_kuhn_and_tucker(rng: np.random.Generator, k: int, most: int) -> None:
    """min |x - a|^2 under sum x = N, lower <= x <= upper: x - a is one number (the multiplier) between the bounds, no
    less where x is held at its lower bound, no more where it is held at its upper one. It is convex: that is enough."""
    aim, lower, upper, total = problem(rng, k, most)
    level = water_level(aim, lower, upper, total)
    x = np.clip(aim + level, lower, upper)
    scale = max(1, most)
    assert x.sum() == pytest.approx(total, abs=1e-9 * scale * k)
    gradient = x - aim
    free = (x > lower) & (x < upper)
    assert np.allclose(gradient[free], level, atol=1e-9 * scale)
    assert (gradient[(x == lower) & (lower < upper)] >= level - 1e-9 * scale).all()
    assert (gradient[(x == upper) & (lower < upper)] <= level + 1e-9 * scale).all()


@settings(max_examples=60, deadline=None)
@given(seeds, st.integers(1, 4))
def test_no_whole_numbers_are_nearer(rng: np.random.Generator, k: int) -> None:
    """The largest remainder of the real solution is an optimum among whole numbers, too: all of them are tried."""
    aim, lower, upper, total = problem(rng, k, 6)
    seats = whole(np.clip(aim + water_level(aim, lower, upper, total), lower, upper), lower, upper, total)
    ranges = (range(low, high + 1) for low, high in zip(lower, upper, strict=True))
    best = min(float(np.square(np.array(x) - aim).sum()) for x in itertools.product(*ranges) if sum(x) == total)
    assert seats.sum() == total and (lower <= seats).all() and (seats <= upper).all()
    assert np.square(seats - aim).sum() == pytest.approx(best, abs=1e-5)


def test_the_same_as_a_solver() -> None:
    """scipy's general solver, on a case with both bounds at work."""
    optimize = pytest.importorskip("scipy.optimize")
    aim = np.array([40.0, 25.0, 20.0, 10.0, 4.0, 1.0])
    lower, upper = np.array([2.0] * 6), np.array([12.0, 60.0, 18.0, 40.0, 9.0, 5.0])
    found = optimize.minimize(
        lambda x: np.square(x - aim).sum(),
        lower,
        bounds=list(zip(lower, upper, strict=True)),
        constraints={"type": "eq", "fun": lambda x: x.sum() - 100},
        options={"ftol": 1e-12},
    )
    assert np.allclose(np.clip(aim + water_level(aim, lower, upper, 100), lower, upper), found.x, atol=1e-4)


def test_worked_by_hand() -> None:
    """Aims 6, 3, 1 of 10, and only 2 of the first to have: the 4 left over go to the others in equal parts."""
    aim, lower, upper = np.array([6.0, 3.0, 1.0]), np.zeros(3), np.array([2.0, 9.0, 9.0])
    assert water_level(aim, lower, upper, 10) == pytest.approx(2)
    assert np.clip(aim + 2, lower, upper).tolist() == [2, 5, 3]
    # in proportion 3 to 1 they would be 6 and 2
    assert filled(aim, upper, 10).tolist() == [2, 6, 2]


def test_ends() -> None:
    aim, lower, upper = np.array([1.0, 2.0]), np.array([0.0, 1.0]), np.array([3.0, 4.0])
    for total, expected in ((1, [0, 1]), (7, [3, 4])):
        assert np.clip(aim + water_level(aim, lower, upper, total), lower, upper).tolist() == expected


@settings(max_examples=200, deadline=None)
@given(seeds, st.integers(1, 30), st.sampled_from([3, 100, 10**7]))
def test_shares_are_in_proportion_but_for_who_is_full(rng: np.random.Generator, k: int, most: int) -> None:
    weight, upper = rng.integers(0, 5, k).astype(float), rng.integers(0, most + 1, k)
    total = int(rng.integers(0, upper[weight > 0].sum() + 1))
    shares = filled(weight, upper, total)
    assert shares.sum() == pytest.approx(total, rel=1e-9)
    assert (shares[weight == 0] == 0).all() and (shares <= upper * (1 + 1e-9)).all()
    free = (shares < upper * (1 - 1e-9)) & (weight > 0)
    rate = shares[free] / weight[free]
    if free.any():
        assert np.allclose(rate, rate[0])
        assert (upper[~free & (weight > 0)] <= rate[0] * weight[~free & (weight > 0)] * (1 + 1e-9)).all()


def test_largest_remainders_get_what_is_left_and_ties_go_to_the_first() -> None:
    zero, nine = np.zeros(4, int), np.full(4, 9)
    assert whole(np.array([1.2, 2.7, 0.4, 1.7]), zero, nine, 6).tolist() == [1, 3, 0, 2]
    assert whole(np.array([0.5, 0.5, 0.5, 0.5]), zero, nine, 2).tolist() == [1, 1, 0, 0]
    assert whole(np.array([2.9999999999, 1.0000000001, 0, 0]), zero, nine, 4).tolist() == [3, 1, 0, 0]
    assert whole(np.array([0.6, 0.6, 0.0, 0.8]), zero, np.array([0, 1, 0, 9]), 2).tolist() == [0, 1, 0, 1]


def test_what_does_not_fit_is_said() -> None:
    with pytest.raises(ValueError, match="5 seats"):
        whole(np.array([1.0, 1.0]), np.zeros(2, int), np.ones(2, int), 5)
