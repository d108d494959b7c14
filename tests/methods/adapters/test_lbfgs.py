"""L-BFGS against a linear system, scipy's own, and what stops it."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize

from clipkit.methods.adapters.lbfgs import minimise


def bowl(curvatures: np.ndarray, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A symmetric matrix with these eigenvalues, and a vector."""
    draw = np.random.default_rng(seed)
    turned, _ = np.linalg.qr(draw.standard_normal((len(curvatures), len(curvatures))))
    return turned * curvatures @ turned.T, draw.standard_normal(len(curvatures))


@pytest.mark.parametrize("worst", [1.0, 100.0, 10_000.0])
def test_the_bottom_of_a_bowl(worst: float) -> None:
    shape, tilt = bowl(np.geomspace(1, worst, 30))
    found, steps = minimise(
        lambda x: (float(x @ shape @ x / 2 - tilt @ x), shape @ x - tilt),
        np.ones(30),
        steps=2000,
        slope_below=1e-9,
        fall_below=0.0,
    )
    np.testing.assert_allclose(found, np.linalg.solve(shape, tilt), atol=1e-5 if worst > 1000 else 1e-7)
    assert steps < 1000


@pytest.mark.parametrize("size", [0.01, 1.0, 100.0])
def test_logistic_losses_end_where_scipys_do(size: float) -> None:
    draw = np.random.default_rng(1)
    rows, signs = size * draw.standard_normal((200, 12)), np.sign(draw.standard_normal(200))

    def loss(x: np.ndarray) -> tuple[float, np.ndarray]:
        margins = signs * (rows @ x)
        value = float(np.logaddexp(0, -margins).sum() + 0.05 * size**2 * x @ x)
        return value, -rows.T @ (signs / (1 + np.exp(margins))) + 0.1 * size**2 * x

    found, steps = minimise(loss, np.zeros(12), steps=500, slope_below=1e-9, fall_below=1e-15)
    with np.errstate(over="ignore"):
        theirs = minimize(loss, np.zeros(12), jac=True, method="BFGS", options={"gtol": 1e-9})
    assert loss(found)[0] <= theirs.fun * (1 + 1e-12)
    np.testing.assert_allclose(size * found, size * theirs.x, atol=1e-5)
    assert steps < 100


def test_what_stops_it() -> None:
    asked = []

    def loss(x: np.ndarray) -> tuple[float, np.ndarray]:
        asked.append(x)
        return float(x @ x), 2 * x

    at, steps = minimise(loss, np.zeros(3), steps=9, slope_below=1e-6, fall_below=0)
    assert steps == 0 and len(asked) == 1 and (at == 0).all(), "there already"
    shape, tilt = bowl(np.geomspace(1, 1e4, 30))
    run = [
        minimise(lambda x: (float(x @ shape @ x / 2 - tilt @ x), shape @ x - tilt), np.ones(30), **limits)[1]  # type: ignore[arg-type]
        for limits in (
            {"steps": 5, "slope_below": 0.0, "fall_below": 0.0},
            {"steps": 5000, "slope_below": 0.0, "fall_below": 1e-3},
            {"steps": 5000, "slope_below": 0.0, "fall_below": 0.0},
        )
    ]
    assert run[0] == 5 and run[1] < run[2] < 5000, "steps, what is gained, rounding"


def test_a_step_too_far_is_taken_back() -> None:
    """Beyond 1 there is nothing: its value is not a number."""

    def loss(x: np.ndarray) -> tuple[float, np.ndarray]:
        if x[0] >= 1:
            return float("nan"), np.array([float("nan")])
        return float(-np.log(1 - x[0]) - 3 * x[0]), np.array([1 / (1 - x[0]) - 3])

    found, _ = minimise(loss, np.array([-50.0]), steps=200, slope_below=1e-10, fall_below=0.0)
    np.testing.assert_allclose(found, [2 / 3], atol=1e-8)
