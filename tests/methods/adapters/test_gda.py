"""GDA against its paper's formula, written out naively, and what ours adds to it."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest

from clipkit.methods.adapters.data import Features, Samples, Task, unit
from clipkit.methods.adapters.gda import Gda
from clipkit.methods.adapters.tuning import accuracy


def made(
    counts: list[int],
    *,
    width: int = 7,
    views: int = 1,
    space: str = "joint",
    scale: float = 20.0,
    seed: int = 0,
    spread: float = 0.5,
) -> Samples:
    """Samples of classes around random centres, counts[c] of class c. Backbone features are of other centres."""
    draw = np.random.default_rng(seed)
    classes = len(counts)
    labels = np.repeat(np.arange(classes), counts)
    at = np.repeat(labels, views)

    def around(centres: np.ndarray) -> np.ndarray:
        noise = draw.normal(size=(len(at), centres.shape[1])) * np.geomspace(1, 0.1, centres.shape[1])
        return unit(centres[at] + spread * noise)

    joint, backbone = draw.normal(size=(classes, width)), draw.normal(size=(classes, width + 3))
    text = unit(joint + 0.5 * draw.normal(size=joint.shape))
    task = Task(tuple(map(str, range(classes))), text, scale, space=space)  # type: ignore[arg-type]
    return Samples(task, labels, Features(around(joint), around(backbone)), views)


def papers(rows: np.ndarray, labels: np.ndarray, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """W [d, C] and b [C] as the paper has them, by its own inverse."""
    rows = rows.astype(np.float64)
    n, d = rows.shape
    means = np.array([rows[labels == c].mean(axis=0) for c in range(classes)])
    centred = rows - means[labels]
    covariance = np.cov(centred.T)
    inverse = d * np.linalg.inv((n - 1) * covariance + np.trace(covariance) * np.eye(d))
    weights = inverse @ means.T
    return weights, np.log(1 / classes) - 0.5 * np.array([m @ inverse @ m for m in means])


def centred(logits: np.ndarray) -> np.ndarray:
    """Without what is the same for all classes, which no class gains by: log pi is."""
    return logits - logits.mean(axis=1, keepdims=True)


@pytest.mark.parametrize("space", ["joint", "backbone"])
@pytest.mark.parametrize(("counts", "width", "views"), [([4, 2, 3], 30, 1), ([9, 11, 8, 5], 7, 1), ([2, 2], 5, 10)])
def test_logits_are_the_papers(counts: list[int], width: int, views: int, space: str) -> None:
    """With fewer samples than dimensions and with more: two ways to the same inverse."""
    support = made(counts, width=width, views=views, space=space)
    test = made([20] * len(counts), width=width, seed=1).plain
    adapter = Gda(alpha=0.7).fit(support)
    weights, bias = papers(*support.every_view(), len(counts))
    own = test.of(space).astype(np.float64) @ weights + bias
    expected = support.task.zero_shot(test) + adapter.facts_["paper_alpha"] * own
    np.testing.assert_allclose(centred(adapter.logits(test)), centred(expected), atol=1e-8)


def test_two_classes_on_a_plane() -> None:
    """S = diag(0, 4/3), tr(S) / (n - 1) = 4/9, P = diag(9/4, 9/16), w = (9/2, 0), b = -9/2, in a unit."""
    points = np.array([[2, 1], [2, -1], [0, 1], [0, -1]], np.float32)
    task = Task(("right", "left"), np.zeros((2, 2), np.float32), 1.0)
    adapter = Gda(alpha=2.0).fit(Samples(task, np.array([0, 0, 1, 1]), Features(points)))
    unit = adapter.facts_["paper_alpha"] / 2.0 * 2 / 3
    assert 0 < unit < 1
    np.testing.assert_allclose(adapter.state_["weights"], unit * np.array([[4.5, 0], [0, 0]]), atol=1e-12)
    np.testing.assert_allclose(adapter.state_["bias"], unit * np.array([-4.5, 0]), atol=1e-12)
    middle = Features(np.array([[1, 5], [3, 5]], np.float32))
    np.testing.assert_allclose(adapter.logits(middle) @ [1, -1], [0, 2 * unit * 9], atol=1e-6)


@pytest.mark.parametrize(("counts", "width"), [([4, 1, 3, 2], 30), ([9, 11, 1, 5], 7), ([3, 3], 5)])
def test_the_signal_is_what_leaving_out_each_image_finds(counts: list[int], width: int) -> None:
    """By solving anew without each row. The signal is seen in the unit of alpha."""
    support = made(counts, width=width, spread=1.5)
    rows, labels = support.every_view()
    rows = rows.astype(np.float64)
    n, classes = len(rows), len(counts)

    def inverse(rows: np.ndarray, labels: np.ndarray, ridge: float) -> tuple[np.ndarray, np.ndarray]:
        means = np.array([rows[labels == c].mean(axis=0) for c in range(classes)])
        off = rows - means[labels]
        ridge = ridge or float((off**2).sum()) / (n - 1)
        return means, (n - 1) * np.linalg.inv(off.T @ off + ridge * np.eye(width))

    means, whole = inverse(rows, labels, 0)
    ridge = float(((rows - means[labels]) ** 2).sum()) / (n - 1)
    noise, between = [], []
    for i in np.flatnonzero(np.array(counts)[labels] > 1):
        others = np.arange(n) != i
        left, inside = inverse(rows[others], labels[others], ridge)
        squared = np.array([(rows[i] - m) @ inside @ (rows[i] - m) for m in left])
        noise.append(squared[labels[i]] * (1 - 1 / counts[labels[i]]))
        between.append(np.delete(squared, labels[i]).mean())
    true = np.mean(between) - np.mean(noise) * (1 + np.mean(1 / np.array(counts)))
    pairs = [(a - b) @ whole @ (a - b) for a, b in itertools.combinations(means, 2)]
    signal = np.clip(true / np.mean(pairs), 0, 1)
    adapter = Gda(alpha=1.0).fit(support)
    unit = signal * (n - classes) / n / (1 + signal * classes / n)
    assert adapter.facts_["paper_alpha"] * width / (n - 1) == pytest.approx(unit, rel=1e-9)
    assert 0 < signal < 1


def test_means_that_are_noise_leave_zero_shot_as_it_is() -> None:
    support, test = made([2] * 8, width=60), made([30] * 8, width=60, seed=1)
    deaf = np.random.default_rng(5).normal(size=support.features.joint.shape)
    support = Samples(support.task, support.labels, Features(support.features.joint, unit(deaf)))
    support = replace(support, task=replace(support.task, space="backbone"))
    noise = unit(np.random.default_rng(6).normal(size=test.features.joint.shape))
    shown = Features(test.features.joint, noise)
    before = accuracy(support.task.zero_shot(shown), test.labels)
    assert accuracy(Gda().fit(support).logits(shown), test.labels) >= before - 0.01


def test_the_prior_is_that_of_the_support_and_not_weighted() -> None:
    support = made([5, 1, 2])
    test = made([3, 3, 3], seed=1).plain
    for alpha in (0.0, 3.0):
        plain, shifted = Gda(alpha=alpha).fit(support), Gda(alpha=alpha, prior="empirical").fit(support)
        expected = np.log(np.array([6, 2, 3]) / 11)
        np.testing.assert_allclose(shifted.logits(test) - plain.logits(test), np.tile(expected, (9, 1)), atol=1e-9)


def test_the_order_of_samples_changes_nothing() -> None:
    support = made([3, 4, 0, 6], views=2)
    order = np.random.default_rng(3).permutation(len(support))
    test = made([2] * 4, seed=1).plain
    one, other = Gda().fit(support), Gda().fit(support.take(order))
    np.testing.assert_allclose(one.logits(test), other.logits(test), atol=1e-10)


@pytest.mark.parametrize("space", ["joint", "backbone"])
def test_one_image_a_class_takes_the_covariance_of_all(space: str) -> None:
    support = made([1] * 5, space=space)
    rows = support.features.of(space).astype(np.float64)
    adapter = Gda(alpha=3.0).fit(support)
    covariance = np.cov(rows.T)
    inverse = np.linalg.inv(covariance + np.trace(covariance) / 4 * np.eye(rows.shape[1]))
    weights, bias = inverse @ rows.T, -0.5 * np.array([x @ inverse @ x for x in rows])
    text = support.task.zero_shot(support.plain).std(axis=1).mean()
    factor = 0.5**0.5 * text / (rows @ weights + bias).std(axis=1).mean()
    test = made([9] * 5, seed=1).plain
    expected = support.task.zero_shot(test) + 3 * factor * (test.of(space) @ weights + bias)
    np.testing.assert_allclose(adapter.logits(test), expected, atol=1e-8)
    assert "paper_alpha" not in adapter.facts_


def test_copies_of_one_image_say_nothing_of_the_covariance() -> None:
    once = made([1] * 4)
    thrice = once.take(np.repeat(np.arange(4), 3))
    adapter = Gda().fit(thrice)
    assert "paper_alpha" not in adapter.facts_
    test = made([5] * 4, seed=1).plain
    np.testing.assert_array_equal(adapter.logits(test).argmax(axis=1), Gda().fit(once).logits(test).argmax(axis=1))


@pytest.mark.parametrize("count", [1, 3])
def test_a_single_class(count: int) -> None:
    support = made([count])
    assert np.isfinite(Gda().fit(support).logits(support.plain)).all()


@pytest.mark.parametrize("space", ["joint", "backbone"])
@pytest.mark.parametrize("width", [6, 90])
def test_classes_without_images(space: str, width: int) -> None:
    """Means and inverses of the paper's base-to-new setting; then one inverse for all classes."""
    support = made([40, 0, 50, 0], width=width, space=space)
    text = support.task.text.astype(np.float64)
    rows = support.features.of(space).astype(np.float64)
    n, d = rows.shape

    def inverse(samples: np.ndarray, centre: np.ndarray) -> np.ndarray:
        k = len(samples)
        covariance = (samples - centre).T @ (samples - centre) / (k - 1)
        return np.linalg.inv(covariance + np.trace(covariance) / (k - 1) * np.eye(d))

    means = np.zeros((4, d))
    for c in (0, 2):
        means[c] = rows[support.labels == c].mean(axis=0)
    total = 2 * inverse(rows, means[support.labels])
    for c in (1, 3):
        best = np.argsort(-(support.features.joint @ support.task.text[c]))[:64]
        copies = np.tile(text[c], (16, 1)) if space == "joint" else np.zeros((0, d))
        means[c] = np.concatenate([rows[best], copies]).mean(axis=0)
        total += inverse(rows[best], text[c] if space == "joint" else rows[best].mean(axis=0))
    weights = means @ total / 4
    bias = -0.5 * (means * weights).sum(axis=1)

    test = made([10] * 4, width=width, seed=1).plain
    adapter = Gda(alpha=0.4).fit(support)
    factor = adapter.facts_["paper_alpha"] * d / (n - 1)
    expected = support.task.zero_shot(test) + factor * (test.of(space).astype(np.float64) @ weights.T + bias)
    np.testing.assert_allclose(adapter.logits(test), expected, atol=1e-8)


def test_alpha_is_held_back_where_a_class_was_never_seen() -> None:
    """Whatever a validation set says that is without it too: here that images are right and texts wrong."""
    support, validation = made([9, 9, 0]), made([9, 9, 0], seed=0, spread=0.7)
    support.task.text[:2] = support.task.text[1::-1]
    validation = Samples(support.task, validation.labels, validation.features)
    assert Gda().fit(support, validation).at("alpha") <= 1
    every = made([9, 9, 9])
    every.task.text[:2] = every.task.text[1::-1]
    assert Gda().fit(every, every).at("alpha") > 0


@pytest.mark.parametrize("width", [16, 200])
@pytest.mark.parametrize("shots", [2, 4, 16])
def test_one_untuned_alpha_suits_any_size(shots: int, width: int) -> None:
    """With 1 nothing is worse than zero-shot, even where the best alpha is 0; and half of all gain is there."""
    classes = 12
    draw = np.random.default_rng(shots)
    centres = draw.normal(size=(classes, width))
    noise = np.geomspace(8, 0.2, width) * (1.5 if width > 16 else 0.6)

    def sampled(count: int) -> tuple[np.ndarray, np.ndarray]:
        labels = np.repeat(np.arange(classes), count)
        return unit(centres[labels] + noise * draw.normal(size=(len(labels), width))), labels

    text = unit(centres + draw.normal(size=centres.shape))
    task = Task(tuple(map(str, range(classes))), text, scale=5.0)
    rows, labels = sampled(shots)
    support = Samples(task, labels, Features(rows))
    rows, labels = sampled(100)
    test = Features(rows)
    before = accuracy(task.zero_shot(test), labels)
    adapter = Gda().fit(support)
    untuned = accuracy(adapter.logits(test), labels)
    reached = []
    for alpha in np.logspace(-3, 3, 13):
        adapter.alpha = float(alpha)  # a weight on what was fitted
        reached.append(accuracy(adapter.logits(test), labels))
    assert untuned >= before - 0.005
    assert untuned - before >= 0.5 * (max(reached) - before) - 0.02
