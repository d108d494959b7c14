"""LP++ against its formulas, written out sample by sample."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from clipkit.methods.adapters import lpp, selection
from clipkit.methods.adapters.data import Features, Samples, Task, unit
from clipkit.methods.adapters.lpp import LpPlusPlus
from clipkit.methods.adapters.tuning import cross_entropy


def made(counts: list[int], *, width: int = 6, views: int = 1, space: str = "joint", seed: int = 0) -> Samples:
    draw = np.random.default_rng(seed)
    centres, deep = draw.normal(size=(len(counts), width)), draw.normal(size=(len(counts), width + 4))
    text = unit(np.random.default_rng(99).normal(size=centres.shape) + centres)
    labels = np.repeat(np.arange(len(counts)), counts)
    at = np.repeat(labels, views)
    draw = np.random.default_rng(seed + 1000)
    joint, backbone = (unit(c[at] + 1.5 * draw.normal(size=(len(at), c.shape[1]))) for c in (centres, deep))
    task = Task(tuple(map(str, range(len(counts)))), text, 20.0, space=space)  # type: ignore[arg-type]
    return Samples(task, labels, Features(joint, backbone), views)


def others(counts: list[int], support: Samples, seed: int = 7) -> Samples:
    """Samples of the same classes."""
    more = made([count + 10 for count in counts], space=support.task.space)
    rows = np.random.default_rng(seed).permutation(len(more))[: sum(counts)]
    return replace(more.take(rows), task=support.task)


class Naive:
    """One sample after the other, every derivative by its definition."""

    def __init__(self, support: Samples) -> None:
        task, classes = support.task, len(support.task.classes)
        rows, self.labels = support.every_view()
        self.rows = [row.astype(np.float64) for row in rows]
        self.cosines = [task.text.astype(np.float64) @ row.astype(np.float64) for row in support.features.joint]
        self.n = len(self.rows)
        per_class = len(support.labels) / classes
        of = [[i for i in range(self.n) if self.labels[i] == c] for c in range(classes)]
        self.w = np.array([per_class * sum(self.rows[i] for i in of[c]) / len(of[c]) for c in range(classes)])
        own = np.mean([np.mean([self.cosines[i][c] for i in of[c]]) for c in range(classes)])
        self.alpha, self.b = np.full(classes, 2.5 * task.scale * own), np.zeros(classes)
        ones = np.array([[*row, 1.0] for row in self.rows])
        self.rate = 4 * self.n / max(np.linalg.eigvalsh(ones.T @ ones))
        self.alpha_rate = self.n / (4 * max(sum(z[c] ** 2 for z in self.cosines) for c in range(classes)))

    def loss(self, w: np.ndarray, b: np.ndarray, alpha: np.ndarray) -> float:
        total = 0.0
        for row, z, label in zip(self.rows, self.cosines, self.labels, strict=True):
            logits = w @ row + alpha * z + b
            total += np.log(np.exp(logits - logits[label]).sum())
        return total / self.n

    def gradients(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        w, b, alpha = np.zeros_like(self.w), np.zeros_like(self.b), np.zeros_like(self.alpha)
        for row, z, label in zip(self.rows, self.cosines, self.labels, strict=True):
            chances = np.exp(self.w @ row + self.alpha * z + self.b)
            chances /= chances.sum()
            for c, chance in enumerate(chances):
                excess = (chance - (c == label)) / self.n
                w[c] += excess * row
                b[c] += excess
                alpha[c] += excess * z[c]
        return w, b, alpha

    def descend(self, steps: int) -> None:
        fast_w, fast_b = np.zeros_like(self.w), np.zeros_like(self.b)
        for step in range(1, steps + 1):
            w, b, alpha = self.gradients()
            fast_w, fast_b = 0.9 * fast_w + w, 0.9 * fast_b + b
            self.w, self.b = self.w - self.rate * fast_w, self.b - self.rate * fast_b
            if step % 10 == 0:
                self.alpha = self.alpha - self.alpha_rate * alpha


def test_the_naive_gradients_are_those_of_the_loss() -> None:
    naive = Naive(made([3, 2, 4]))
    point = (naive.w, naive.b, naive.alpha)
    for number, gradient in enumerate(naive.gradients()):
        for at in np.ndindex(gradient.shape):
            ends = []
            for step in (1e-5, -1e-5):
                moved = [value.copy() for value in point]
                moved[number][at] += step
                ends.append(naive.loss(*moved))
            assert (ends[0] - ends[1]) / 2e-5 == pytest.approx(gradient[at], abs=1e-8)


@pytest.mark.parametrize("space", ["joint", "backbone"])
@pytest.mark.parametrize(("counts", "width", "views"), [([3, 2, 4], 6, 1), ([1, 1, 1], 12, 1), ([2, 5], 4, 3)])
def test_logits_are_the_papers(counts: list[int], width: int, views: int, space: str) -> None:
    support = made(counts, width=width, views=views, space=space)
    for steps in (1, 9, 10, 45):
        naive = Naive(support)
        naive.descend(steps)
        test = made([3] * len(counts), width=width, seed=5).plain
        expected = test.of(space).astype(np.float64) @ naive.w.T + naive.b
        expected += naive.alpha * (test.joint.astype(np.float64) @ support.task.text.T.astype(np.float64))
        np.testing.assert_allclose(LpPlusPlus(steps=steps).fit(support).logits(test), expected, atol=1e-8)


def test_two_images_on_two_axes() -> None:
    """f = t = the axes, scale 4: alpha = 10, w = I, logits (11, 0); [F, 1]'s largest squared value is 3, so the step is
    8 / 3; with q = 1 / (1 + e^11) the gradient of w is q / 2 * [[-1, 1], [1, -1]]."""
    axes = np.eye(2, dtype=np.float32)
    support = Samples(Task(("x", "y"), axes, 4.0), np.array([0, 1]), Features(axes))
    state = LpPlusPlus(steps=1).fit(support).state_
    small = 8 / 3 / 2 / (1 + np.exp(11))
    np.testing.assert_allclose(state["weights"], [[1 + small, -small], [-small, 1 + small]], rtol=1e-12)
    np.testing.assert_allclose(state["alpha"], [10, 10])
    np.testing.assert_allclose(state["bias"], [0, 0], atol=1e-15)


def test_the_head_says_text_and_own_weights_apart() -> None:
    adapter = LpPlusPlus(steps=20).fit(made([2, 3], space="backbone"))
    head = adapter.fold()
    assert head is not None and head.joint is not None
    np.testing.assert_allclose(head.joint, adapter.state_["alpha"][:, None] * adapter.task_.text)
    np.testing.assert_array_equal(head.backbone, adapter.state_["weights"])
    assert np.ptp(adapter.state_["alpha"]) > 0


def test_a_text_never_counts_against_its_class_at_first() -> None:
    support = made([2, 2, 2])
    support = replace(support, task=replace(support.task, text=-support.task.text))
    assert (LpPlusPlus(steps=1).fit(support).state_["alpha"] == 0).all()


def test_the_steps_chosen_are_those_of_the_least_loss_on_validation() -> None:
    counts = [4, 4, 4]
    support = made(counts)
    validation = others(counts, support)
    chosen = LpPlusPlus().fit(support, validation)
    steps = chosen.at("steps")
    losses = {
        count: cross_entropy(LpPlusPlus(steps=count).fit(support).logits(validation.plain), validation.labels)
        for count in sorted({1, 5, steps - 1, steps, steps + 1, 100, 300} - {0, 301})
    }
    assert min(losses, key=losses.__getitem__) == steps
    given = LpPlusPlus(steps=steps).fit(support)
    np.testing.assert_array_equal(given.logits(validation.plain), chosen.logits(validation.plain))
    again = LpPlusPlus().fit(support, chosen={"steps": steps})
    np.testing.assert_array_equal(again.logits(validation.plain), given.logits(validation.plain))
    assert steps < 300


def test_held_out_samples_choose_the_steps_of_a_fit_on_all() -> None:
    support = made([6, 5])
    adapter, how = selection.fit(LpPlusPlus(), support)
    assert how.on == "held-out"
    whole = LpPlusPlus(steps=adapter.chosen_["steps"]).fit(support)
    whole.temperature = adapter.temperature
    np.testing.assert_array_equal(adapter.logits(support.plain), whole.logits(support.plain))


@pytest.mark.parametrize("shift", [0.0, 3.0])
@pytest.mark.parametrize("width", [2, 300])
def test_no_step_is_too_long(shift: float, width: int) -> None:
    """The loss falls to what can be separated, for features with much in common and for those with nothing."""
    draw = np.random.default_rng(0)
    rows = unit(draw.normal(size=(60, width)) + shift)
    labels = np.arange(60) % 3
    support = Samples(Task(("a", "b", "c"), unit(draw.normal(size=(3, width))), 20.0), labels, Features(rows))
    losses = [cross_entropy(LpPlusPlus(steps=s).fit(support).logits(support.plain), labels) for s in (1, 100, 200, 300)]
    assert losses == sorted(losses, reverse=True)


def test_blocks_of_rows_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    support = made([4, 5, 2])
    whole = LpPlusPlus(steps=30).fit(support).logits(support.plain)
    monkeypatch.setattr(lpp, "_BLOCK", 3)
    np.testing.assert_allclose(LpPlusPlus(steps=30).fit(support).logits(support.plain), whole, atol=1e-10)
