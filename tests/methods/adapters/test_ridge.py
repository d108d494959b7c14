"""Ridge: the normal equations, both ways of solving them, and what validation chooses."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clipkit.methods.adapters import moments
from clipkit.methods.adapters.data import Features, Samples, Space, Task, unit
from clipkit.methods.adapters.ridge import Ridge
from clipkit.methods.adapters.tuning import accuracy


def samples_of(count: int, width: int, classes: int = 3, seed: int = 0, space: Space = "backbone") -> Samples:
    random = np.random.default_rng(seed)
    text = unit(np.random.default_rng(99).standard_normal((classes, 5)))
    labels = np.arange(count) % classes
    means = np.random.default_rng(98).standard_normal((classes, width))
    features = Features(
        unit(random.standard_normal((count, 5))), unit(1 + means[labels] + random.standard_normal((count, width)))
    )
    return Samples(Task(tuple("abcdefgh"[:classes]), text, 15.0, -2.0, space), labels, features)


def solved(support: Samples, asked: Features, alpha: float, strength: float) -> np.ndarray:
    """From the normal equations, with the intercept and the one-hot labels written out."""
    x, f = (part.of(support.task.space).astype(float) for part in (support.plain, asked))
    y = np.eye(len(support.task.classes))[support.labels]
    mean = x.mean(axis=0)
    size = np.mean(((x - mean) ** 2).sum(axis=1))
    normal = (x - mean).T @ (x - mean) + strength * size * np.eye(x.shape[1])
    weights = np.linalg.solve(normal, (x - mean).T @ (y - y.mean(axis=0)))
    zero = support.task.scale * asked.joint.astype(float) @ support.task.text.T.astype(float) - 2.0
    return np.asarray(zero + alpha * ((f - mean) @ weights + y.mean(axis=0)))


@settings(max_examples=40, deadline=None)
@given(
    count=st.integers(3, 40),
    width=st.integers(2, 40),
    strength=st.floats(1e-3, 1e3),
    space=st.sampled_from(["joint", "backbone"]),
)
def test_logits_solve_the_normal_equations(count: int, width: int, strength: float, space: Space) -> None:
    """More samples than dimensions and fewer, and unequal classes."""
    support, asked = samples_of(count, width, space=space), samples_of(9, width, seed=1).plain
    got = Ridge(alpha=4.0, strength=strength).fit(support).logits(asked)
    np.testing.assert_allclose(got, solved(support, asked, 4.0, strength), rtol=0, atol=1e-7)


def test_a_single_dimension_by_hand() -> None:
    """Centred rows -+(.5, -.5): on the axis they span -+1/sqrt 2, sum of squares 1, size 1/2; targets +-1/2.

    So the fitted targets are 1/2 * 1 / (1 + 2 * 1/2) = 1/4, about shares of 1/2.
    """
    rows = np.array([[0.0, 1.0], [1.0, 0.0]], np.float32)
    task = Task(("a", "b"), np.zeros((2, 2), np.float32), 1.0)
    got = Ridge(alpha=1.0, strength=2.0).fit(Samples(task, np.array([0, 1]), Features(rows))).logits(Features(rows))
    np.testing.assert_allclose(got, [[0.75, 0.25], [0.25, 0.75]], atol=1e-12)


def test_copies_of_every_sample_are_the_same_at_twice_the_strength() -> None:
    """Sums double, the mean size stays. Views are such copies."""
    support = samples_of(12, 20)
    assert support.features is not None and support.features.backbone is not None
    joint, backbone = (np.repeat(part, 2, axis=0) for part in (support.features.joint, support.features.backbone))
    views = Samples(support.task, support.labels, Features(joint, backbone), views=2)
    once = Ridge(alpha=3.0, strength=0.4).fit(support).logits(support.plain)
    np.testing.assert_allclose(Ridge(alpha=3.0, strength=0.8).fit(views).logits(support.plain), once, atol=1e-9)


def test_equal_features_leave_the_shares_of_the_classes() -> None:
    support = samples_of(4, 6, classes=2)
    rows = np.repeat(unit(np.ones((1, 6))), 4, axis=0)
    same = Samples(support.task, np.array([0, 0, 0, 1]), Features(support.plain.joint, rows))
    added = Ridge(alpha=8.0).fit(same).logits(same.plain) - same.task.zero_shot(same.plain)
    np.testing.assert_allclose(added, np.tile([6.0, 2.0], (4, 1)), atol=1e-9)


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    support, asked = samples_of(300, 12), samples_of(40, 12, seed=1)
    whole = Ridge().fit(support, asked)
    monkeypatch.setattr(moments, "_BLOCK", 7)
    parts = Ridge().fit(support, asked)
    assert parts.chosen_ == whole.chosen_
    np.testing.assert_allclose(parts.logits(asked.plain), whole.logits(asked.plain), atol=1e-9)


def test_validation_chooses_what_is_open_and_no_more() -> None:
    support, validation = samples_of(24, 30), samples_of(30, 30, seed=1)
    assert Ridge().fit(support, validation).chosen_.keys() == {"alpha", "strength"}
    assert Ridge(alpha=2.0).fit(support, validation).chosen_.keys() == {"strength"}
    assert Ridge(strength=2.0).fit(support, validation).chosen_.keys() == {"alpha"}
    assert Ridge(alpha=1.0, strength=2.0).fit(support, validation).chosen_ == {}
    chosen = Ridge().fit(support, validation)
    for alpha, strength in ((3.0, 0.1), (30.0, 1.0), (300.0, 10.0)):
        other = Ridge(alpha=alpha, strength=strength).fit(support)
        labels = validation.labels
        assert accuracy(chosen.logits(validation.plain), labels) >= accuracy(other.logits(validation.plain), labels)


def test_a_refit_takes_what_was_chosen() -> None:
    support = samples_of(24, 30)
    chosen = {"alpha": 5.0, "strength": 3.0}
    refit = Ridge().fit(support, chosen=chosen)
    assert refit.chosen_ == chosen
    given_ = Ridge(**chosen).fit(support)
    np.testing.assert_array_equal(refit.logits(support.plain), given_.logits(support.plain))
