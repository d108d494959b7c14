"""The search finds what a fine grid finds, and its measures are what they are called."""

from __future__ import annotations

import numpy as np
import pytest

from clipkit.methods.adapters.tuning import Axis, accuracy, cross_entropy, score, temperature, tune


def problem(seed: int, rows: int = 60, classes: int = 5) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Two weak opinions of the same labels, on different scales."""
    draw = np.random.default_rng(seed)
    labels = draw.integers(0, classes, rows)
    truth = np.eye(classes)[labels]
    base = 2 * truth + draw.standard_normal((rows, classes)) * 2
    return base, (truth + draw.standard_normal((rows, classes))) * 0.02, labels


def test_it_is_nearly_as_good_as_a_grid_of_many_more_points() -> None:
    """Accuracy on 60 samples is not smooth: a grid finds lonely points that are better by luck."""
    axis, missed = Axis(0.1, 10_000, points=11, zero=True), []
    for seed in range(100):
        base, head, labels = problem(seed)
        found = tune(base, lambda _, own=head: own, labels, axis)
        fine = max(accuracy(base + alpha * head, labels) for alpha in [0, *np.geomspace(0.1, 10_000, 300)])
        assert found.score == score(base + found.alpha * head, labels)
        assert found.tried <= 12 + 2 * 5
        missed.append(fine - found.score[0])
    assert max(missed) <= 4 / 60 + 1e-9
    assert np.mean(missed) <= 1 / 60


def test_a_worthless_head_gets_no_weight() -> None:
    base, head, labels = problem(1)
    assert tune(base, lambda _: -np.abs(base) * np.eye(5)[labels], labels, Axis(0.1, 100, zero=True)).alpha == 0.0
    assert tune(base, lambda _: 0 * head, labels, Axis(0.1, 100, zero=True)).alpha == 0.0, "of equals the smallest"


def test_the_outer_parameter_is_found_and_asked_for_once_a_point() -> None:
    labels = np.arange(40) % 4
    asked: list[float] = []

    def head(width: float) -> np.ndarray:
        asked.append(width)
        return np.eye(4)[labels] * np.exp(-(np.log(width / 3.0) ** 2))

    noise = np.random.default_rng(0).standard_normal((40, 4)) * 3
    found = tune(noise, head, labels, Axis(1.0, 1.0), Axis(0.1, 50))
    assert found.alpha == 1.0 and found.outer is not None and 2.0 < found.outer < 4.5
    assert len(asked) == len(set(asked))


def test_a_fixed_outer_value_is_passed_on() -> None:
    base, own, labels = problem(2)
    seen: list[float] = []
    found = tune(base, lambda value: (seen.append(value), own)[1], labels, Axis(0.1, 10), fixed=5.5)
    assert set(seen) == {5.5} and found.outer is None


@pytest.mark.parametrize("axis", [Axis(0.1, 100), Axis(0.0, 1.0, log=False), Axis(2, 50, points=5)])
def test_refinements_stay_inside_and_get_finer(axis: Axis) -> None:
    points = axis.coarse()
    assert np.isclose(points[0], axis.low) and np.isclose(points[-1], axis.high)
    for best in points:
        near, nearer = axis.around(best, 0), axis.around(best, 1)
        for some in (near, nearer):
            assert best in some and (some >= axis.low).all() and (some <= axis.high).all() and (np.diff(some) > 0).all()
        assert np.ptp(nearer) < np.ptp(near) <= 2 * np.diff(points).max() * (1 + 1e-9)


def test_measures_by_hand() -> None:
    logits = np.log(np.array([[0.5, 0.25, 0.25], [0.1, 0.8, 0.1], [0.2, 0.2, 0.6]]))
    labels = np.array([0, 1, 0])
    assert accuracy(logits, labels) == pytest.approx(2 / 3)
    assert cross_entropy(logits, labels) == pytest.approx(-np.log([0.5, 0.8, 0.2]).mean())
    assert cross_entropy(logits + 1000, labels) == pytest.approx(cross_entropy(logits, labels)), "no overflow"
    assert accuracy(np.zeros((1, 2)), np.array([1])) == 0.0, "of equals the first counts"
    assert np.isnan(accuracy(logits[:0], labels[:0])) and np.isnan(cross_entropy(logits[:0], labels[:0]))


def test_the_temperature_is_that_of_the_least_smoothed_cross_entropy() -> None:
    base, _, labels = problem(3)
    found = temperature(7 * base, labels)
    assert found == pytest.approx(7 * temperature(base, labels), rel=1e-2)
    doubt = 1 / (len(labels) + 2)
    truth = (1 - doubt) * np.eye(5)[labels] + doubt / 5

    def loss(divisor: float) -> float:
        logits = 7 * base / divisor
        return float(-(truth * (logits - np.log(np.exp(logits).sum(axis=1, keepdims=True)))).sum(axis=1).mean())

    assert loss(found) <= min(loss(point) for point in np.geomspace(0.1, 1000, 400)) + 1e-6


def test_samples_that_are_all_right_ask_for_no_certainty() -> None:
    logits = np.eye(4)[np.arange(12) % 4]
    scaled = logits / temperature(logits, np.arange(12) % 4)
    assert 0.9 < (np.exp(scaled) / np.exp(scaled).sum(axis=1, keepdims=True)).max() < 0.99
    assert temperature(np.zeros((6, 3)), np.array([0, 1, 2, 0, 1, 2])) > 0, "logits that say nothing"
