"""Logistic regression: the optimum, found independently; the zero-shot logits under it; the search for a strength."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import brentq, minimize
from scipy.special import expit, logsumexp, softmax

from clipkit.methods.adapters import linear
from clipkit.methods.adapters.data import Features, Samples, Space, Task, unit
from clipkit.methods.adapters.linear import Linear
from clipkit.methods.adapters.tuning import accuracy, cross_entropy


def samples_of(
    count: int, width: int = 8, classes: int = 3, seed: int = 0, space: Space = "backbone", noise: float = 1.0
) -> Samples:
    random = np.random.default_rng(seed)
    text = unit(np.random.default_rng(99).standard_normal((classes, 5)))
    labels = np.arange(count) % classes
    means = np.random.default_rng(98).standard_normal((classes, width))
    joint = unit(text[labels] + 0.8 * random.standard_normal((count, 5)))
    backbone = unit(1 + means[labels] + noise * random.standard_normal((count, width)))
    return Samples(Task(tuple("abcdefgh"[:classes]), text, 15.0, -2.0, space), labels, Features(joint, backbone))


def size_of(rows: np.ndarray) -> float:
    return float(np.mean(((rows - rows.mean(axis=0)) ** 2).sum(axis=1)))


@pytest.mark.parametrize("zero_shot", [True, False])
@pytest.mark.parametrize(("count", "width"), [(30, 8), (12, 25)])
@pytest.mark.parametrize("strength", [0.01, 1.0])
def test_the_optimum_is_the_one_found_without_centring_axes_or_gradient_of_ours(
    zero_shot: bool, count: int, width: int, strength: float
) -> None:
    """The loss as it is said, over weights on the plain features, minimised by BFGS."""
    support, asked = samples_of(count, width), samples_of(20, width, seed=1).plain
    x, f = (part.of("backbone").astype(float) for part in (support.plain, asked))
    text = support.task.text.astype(float)
    base, known = (
        15.0 * part.joint.astype(float) @ text.T - 2.0 if zero_shot else 0.0 for part in (support.plain, asked)
    )
    onehot, penalty = np.eye(3)[support.labels], strength * size_of(x)

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        weights, bias = flat[:-3].reshape(3, width), flat[-3:]
        logits = base + x @ weights.T + bias
        value = (logsumexp(logits, axis=1) - (logits * onehot).sum(axis=1)).sum() + penalty / 2 * (weights**2).sum()
        slope = softmax(logits, axis=1) - onehot
        return value, np.concatenate([(slope.T @ x + penalty * weights).ravel(), slope.sum(axis=0)])

    best = minimize(loss, np.zeros(3 * width + 3), jac=True, method="BFGS", options={"gtol": 1e-8, "maxiter": 5000}).x
    wanted = known + f @ best[:-3].reshape(3, width).T + best[-3:]
    got = Linear(zero_shot=zero_shot, strength=strength).fit(support).logits(asked)
    np.testing.assert_allclose(softmax(got, axis=1), softmax(wanted, axis=1), rtol=0, atol=2e-5)
    np.testing.assert_allclose(got - got[:, :1], wanted - wanted[:, :1], rtol=0, atol=1e-4)


def test_two_points_in_closed_form() -> None:
    """Rows (1, 0) and (0, 1), one of each class: by symmetry one margin m, the root of penalty m = 2 (1 - sigmoid m).

    The centred rows are -+h with |h|^2 = 1/2 = size. Weights -+v h: m = 2 v |h|^2 = v, and the loss is
    2 log(1 + e^-m) + strength * size / 2 * 2 v^2 |h|^2 = 2 log(1 + e^-m) + strength m^2 / 4.
    """
    rows = np.eye(2, dtype=np.float32)
    task = Task(("a", "b"), np.zeros((2, 2), np.float32), 1.0)
    strength = 0.3
    margin = brentq(lambda m: 2 * (expit(m) - 1) + strength * m / 2, 0.0, 50.0)
    got = Linear(strength=strength).fit(Samples(task, np.array([0, 1]), Features(rows))).logits(Features(rows))
    np.testing.assert_allclose(got, [[margin / 2, -margin / 2], [-margin / 2, margin / 2]], atol=1e-5)


def test_it_agrees_with_scikit_learn() -> None:
    sklearn = pytest.importorskip("sklearn.linear_model")
    support, asked = samples_of(60, 10), samples_of(25, 10, seed=1).plain
    x = support.plain.of("backbone").astype(float)
    other = sklearn.LogisticRegression(C=1 / (0.05 * size_of(x)), tol=1e-8, max_iter=5000).fit(x, support.labels)
    got = Linear(zero_shot=False, strength=0.05).fit(support).logits(asked)
    np.testing.assert_allclose(softmax(got, axis=1), other.predict_proba(asked.of("backbone")), rtol=0, atol=1e-4)


@pytest.mark.parametrize("zero_shot", [True, False])
def test_a_warm_start_ends_where_a_cold_one_does(zero_shot: bool) -> None:
    """The fit at the chosen strength came from its neighbours on the path."""
    support, validation = samples_of(30, noise=2.0), samples_of(30, seed=1, noise=2.0)
    chosen = Linear(zero_shot=zero_shot).fit(support, validation)
    assert chosen.facts_["fits"] > 5
    cold = Linear(zero_shot=zero_shot, strength=chosen.chosen_["strength"]).fit(support)
    np.testing.assert_allclose(chosen.logits(validation.plain), cold.logits(validation.plain), rtol=0, atol=2e-4)


def test_validation_does_not_choose_worse_than_any_strength_of_its_first_sweep() -> None:
    support, validation = samples_of(24, noise=2.5), samples_of(60, seed=1, noise=2.5)
    best = Linear().fit(support, validation).logits(validation.plain)
    for strength in (0.001, 0.01, 0.1, 1.0, 10.0):
        other = Linear(strength=strength).fit(support).logits(validation.plain)
        mine, theirs = accuracy(best, validation.labels), accuracy(other, validation.labels)
        entropies = [round(cross_entropy(logits, validation.labels), 3) for logits in (best, other)]
        assert mine > theirs or (mine == theirs and entropies[0] <= entropies[1])


def test_a_strong_penalty_leaves_zero_shot_with_a_bias() -> None:
    support = samples_of(30)
    moved = Linear(strength=1e6).fit(support).logits(support.plain) - support.task.zero_shot(support.plain)
    np.testing.assert_allclose(moved, np.broadcast_to(moved[0], moved.shape), atol=1e-4)


def test_what_zero_shot_knows_is_left_alone() -> None:
    """All is right and certain: the correction is a small part of the logits, whatever the features say."""
    support = samples_of(6, seed=3)
    sure = Samples(support.task, support.labels, Features(support.task.text[support.labels], support.plain.backbone))
    before = sure.task.zero_shot(sure.plain)
    moved = Linear().fit(sure).logits(sure.plain) - before
    assert np.abs(moved).max() < 0.1 * np.ptp(before)


@pytest.mark.parametrize("space", ["joint", "backbone"])
def test_the_plain_probe_ignores_the_texts(space: Space) -> None:
    support = samples_of(30, space=space)
    turned = Samples(
        Task(support.task.classes, support.task.text[::-1], 99.0, None, space), support.labels, support.features
    )
    probe = Linear(zero_shot=False).fit(support).logits(support.plain)
    np.testing.assert_array_equal(probe, Linear(zero_shot=False).fit(turned).logits(support.plain))
    assert accuracy(probe, support.labels) > 0.6


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    support = samples_of(50)
    whole = Linear().fit(support).logits(support.plain)
    monkeypatch.setattr(linear, "_BLOCK", 7)
    np.testing.assert_allclose(Linear().fit(support).logits(support.plain), whole, rtol=0, atol=1e-4)


def test_equal_features_teach_a_bias_alone() -> None:
    support = samples_of(8, classes=2)
    rows = np.repeat(unit(np.ones((1, 6))), 8, axis=0)
    labels = np.array([0, 0, 0, 0, 0, 0, 1, 1])
    same = Samples(support.task, labels, Features(support.plain.joint, rows))
    got = Linear(zero_shot=False).fit(same).logits(same.plain)
    np.testing.assert_allclose(softmax(got, axis=1), np.tile([0.75, 0.25], (8, 1)), atol=1e-5)


def test_a_fit_on_samples_of_one_class_is_finite() -> None:
    support = samples_of(4, classes=1)
    assert np.isfinite(Linear().fit(support, support).logits(support.plain)).all()
