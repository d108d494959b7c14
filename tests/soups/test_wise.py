"""Between two models: the ends are these models, and the rules that choose a point are those that are told."""

from __future__ import annotations

import numpy as np
import pytest

from clipkit.soups.mixing import mix
from clipkit.soups.recipes import wise_terms
from clipkit.soups.states import State
from clipkit.soups.wise import Point, alphas, frugal, suggested
from tests.soups import small
from tests.soups.test_greedy import measure


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[State]:
    small.register(tmp_path_factory.mktemp("configs"))
    return small.states(tmp_path_factory.mktemp("models"), 2)


def read(one: State) -> dict[str, bytes]:
    with one.open() as tensors:
        return {name: tensor.numpy().tobytes() for name, tensor in tensors.items()}


def made(models: list[State], alpha: float) -> dict[str, bytes]:
    return {name: tensor.numpy().tobytes() for name, tensor in mix(wise_terms(models, alpha))}


def test_the_ends_are_the_models_bit_for_bit(models: list[State]) -> None:
    assert made(models, 0.0) == read(models[0])
    assert made(models, 1.0) == read(models[1])


@pytest.mark.parametrize("alpha", [0.1, 0.3, 0.7, 1 / 3])
def test_a_model_and_itself_is_itself_at_every_alpha(models: list[State], alpha: float) -> None:
    assert made([models[1], models[1]], alpha) == read(models[1])


def test_is_the_sum_that_it_says(models: list[State]) -> None:
    base, tuned = (small.arrays(one) for one in models)
    for name, tensor in mix(wise_terms(models, 0.3)):
        if tensor.is_floating_point():
            expected = 0.7 * base[name] + 0.3 * tuned[name]
            assert np.allclose(tensor.numpy(), expected, rtol=1e-6, atol=1e-7), name


def test_alphas_are_even_and_have_both_ends() -> None:
    assert alphas(10) == [0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1]
    assert alphas(3) == [0, 0.333333, 0.666667, 1]
    assert alphas(1) == [0, 1]
    assert alphas(2, 0.3) == [0, 0.3, 0.5, 1]
    assert alphas(2, 0.5) == [0, 0.5, 1]


def curve(*points: tuple[float, float, float | None]) -> list[Point]:
    return [
        Point(alpha, measure(target), None if others is None else measure(others)) for alpha, target, others in points
    ]


def test_suggested_is_the_best_mean() -> None:
    points = curve((0, 0.5, 0.9), (0.25, 0.7, 0.89), (0.5, 0.8, 0.85), (0.75, 0.84, 0.7), (1, 0.85, 0.5))
    assert suggested(points).alpha == 0.5  # 0.70, 0.795, 0.825, 0.77, 0.675
    found = frugal(points)
    assert found is not None and found.alpha == 0.25  # 0.89 is one point less, and counts as that


def test_of_equal_means_the_least_is_forgotten() -> None:
    assert suggested(curve((0, 0.5, 0.9), (0.5, 0.6, 0.8), (1, 0.7, 0.7))).alpha == 0
    assert 0.7 + 0.1 < 0.6 + 0.2, "as floats have it"
    assert suggested(curve((0, 0.7, 0.1), (1, 0.6, 0.2))).alpha == 0


def test_the_frugal_one_is_the_largest_even_behind_a_dip() -> None:
    found = frugal(curve((0, 0.5, 0.9), (0.5, 0.6, 0.8), (1, 0.7, 0.9)))
    assert found is not None and found.alpha == 1


def test_without_others_the_target_decides() -> None:
    points = curve((0, 0.5, None), (0.5, 0.8, None), (1, 0.8, None))
    assert suggested(points).alpha == 0.5
    assert frugal(points) is None
