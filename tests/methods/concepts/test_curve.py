"""The line of accuracy over frequency: against numpy's and scipy's, by hand, and how often its interval is right."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clipkit.methods.concepts.curve import correlation, fit


def test_a_line_by_hand() -> None:
    """Accuracies .2, .3, .5 at 10, 100, 1000: slope .15, through (2, 1/3); r = .3 / sqrt(2 * .14 / 3)."""
    found = fit(np.array([10, 100, 1000]), np.array([0.2, 0.3, 0.5]), seed=0)
    assert found.slope == pytest.approx(0.15)
    assert found.intercept == pytest.approx(1 / 3 - 0.3)
    assert found.r == pytest.approx(0.3 / np.sqrt(2 * 0.14 / 3))
    assert found.rho == pytest.approx(1)
    assert found.n == 3


some_classes = st.lists(st.tuples(st.integers(1, 10**7), st.integers(0, 20)), min_size=3, max_size=40).filter(
    lambda pairs: len({count for count, _ in pairs}) > 1 and len({hits for _, hits in pairs}) > 1
)


@given(some_classes)
@settings(deadline=None)
def test_as_numpy_and_scipy_say(pairs: list[tuple[int, int]]) -> None:
    stats = pytest.importorskip("scipy.stats")
    counts, accuracies = np.array(pairs, float).T
    accuracies /= 20
    found = fit(counts, accuracies, seed=0, resamples=5)
    slope, intercept = np.polyfit(np.log10(counts), accuracies, 1)
    np.testing.assert_allclose([found.slope, found.intercept], [slope, intercept], rtol=1e-6, atol=1e-6)
    assert found.r == pytest.approx(stats.pearsonr(np.log10(counts), accuracies)[0], abs=1e-6)
    assert found.rho == pytest.approx(stats.spearmanr(counts, accuracies)[0], abs=1e-9)


def test_no_line_without_two_counts_and_no_correlation_of_what_never_changes() -> None:
    assert fit(np.array([]), np.array([]), seed=0).slope is None
    same = fit(np.array([7, 7, 7]), np.array([0.1, 0.2, 0.3]), seed=0)
    assert (same.n, same.slope, same.slope_ci, same.r) == (3, None, None, None)
    flat = fit(np.array([1, 10, 100]), np.array([0.3, 0.3, 0.3]), seed=0)
    assert flat.slope == pytest.approx(0)
    assert flat.r is None
    assert flat.rho is None
    two = fit(np.array([1, 10]), np.array([0.3, 0.5]), seed=0)
    assert two.slope == pytest.approx(0.2)
    assert two.slope_ci is None
    assert correlation(np.array([0.1] * 10), np.arange(10.0)) is None


def test_the_seed_decides_the_interval_and_nothing_else() -> None:
    draw = np.random.default_rng(0)
    counts, accuracies = 10 ** draw.uniform(0, 5, 50), draw.uniform(0, 1, 50)
    first, again, other = (fit(counts, accuracies, seed=seed) for seed in (0, 0, 1))
    assert first == again
    assert first.slope_ci != other.slope_ci
    assert first.slope == other.slope


def test_the_interval_holds_the_slope_about_as_often_as_it_says() -> None:
    """400 made sets of 60 classes: an interval of 95 % misses some 20 times; 3 sigma of a binomial is 13."""
    draw = np.random.default_rng(1)
    held = 0
    for number in range(400):
        counts = 10 ** draw.uniform(1, 6, 60)
        accuracies = 0.1 + 0.12 * np.log10(counts) + draw.normal(0, 0.1, 60)
        low, high = fit(counts, accuracies, seed=number, resamples=300).slope_ci or (0, 0)
        held += low <= 0.12 <= high
    assert 367 <= held <= 393
