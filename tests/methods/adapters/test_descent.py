"""descent against torch's own AdamW and schedule; what is drawn hangs on names alone."""

from __future__ import annotations

import numpy as np
import pytest

from clipkit.methods.adapters.data import Features, Samples, Task
from clipkit.methods.adapters.descent import (
    AdamW,
    batches,
    cosine,
    cross_entropy_slope,
    descend,
    drawn_views,
    in_order,
    keep_best,
)


@pytest.mark.parametrize("epsilon", [1e-8, 1e-4])
def test_adamw_and_cosine_are_torchs(epsilon: float) -> None:
    torch = pytest.importorskip("torch")
    draw = np.random.default_rng(0)
    first = [draw.standard_normal((4, 3)), draw.standard_normal(5)]
    ours = [array.copy() for array in first]
    theirs = [torch.nn.Parameter(torch.from_numpy(array.copy())) for array in first]
    method = AdamW(ours, epsilon=epsilon)
    reference = torch.optim.AdamW(theirs, lr=1e-2, eps=epsilon)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(reference, 30)
    for step in range(30):
        gradients = [draw.standard_normal(array.shape) * 10.0 ** -(step % 6) for array in first]
        for parameter, gradient in zip(theirs, gradients, strict=True):
            parameter.grad = torch.from_numpy(gradient.copy())
        method.step(gradients, cosine(step, 30, 1e-2))
        reference.step()
        schedule.step()
        for mine, parameter in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(mine, parameter.detach().numpy(), atol=1e-6)


def test_a_first_step_by_hand() -> None:
    """Its means are the gradient and its square: a step of the rate against the sign, and the decay."""
    weight = np.array([1.0, -2.0])
    AdamW([weight], decay=0.5).step([np.array([4.0, -0.25])], 0.1)
    np.testing.assert_allclose(weight, [1.0 * 0.95 - 0.1, -2.0 * 0.95 + 0.1], atol=1e-6)


def test_the_rate_falls_along_half_a_cosine() -> None:
    assert [round(cosine(step, 4, 2.0), 4) for step in range(5)] == [2.0, 1.7071, 1.0, 0.2929, 0.0]


@pytest.mark.parametrize(("count", "sizes"), [(1, [1]), (256, [256]), (257, [129, 128]), (600, [200, 200, 200])])
def test_batches_are_even_and_hold_every_row_once(count: int, sizes: list[int]) -> None:
    drawn = batches([str(row) for row in range(count)], 0, 1)
    assert [len(rows) for rows in drawn] == sizes
    assert sorted(np.concatenate(drawn)) == list(range(count))


def test_batches_hang_on_names_seed_and_epoch() -> None:
    names = [f"photo {row}" for row in range(300)]

    def drawn(names: list[str], seed: int, epoch: int) -> list[list[str]]:
        return [[names[row] for row in rows] for rows in batches(names, seed, epoch)]

    assert drawn(names, 3, 1) == drawn(names[::-1], 3, 1)
    assert drawn(names, 3, 1) != drawn(names, 3, 2)
    assert drawn(names, 3, 1) != drawn(names, 4, 1)


def test_slope_of_the_loss_is_torchs() -> None:
    torch = pytest.importorskip("torch")
    logits = np.random.default_rng(1).standard_normal((6, 4)) * 30
    targets = np.array([0, 3, 2, 2, 1, 0])
    given = torch.tensor(logits, requires_grad=True)
    torch.nn.functional.cross_entropy(given, torch.from_numpy(targets)).backward()
    np.testing.assert_allclose(cross_entropy_slope(logits, targets), given.grad.numpy(), atol=1e-12)


def test_descend_walks_down_and_stops_where_asked() -> None:
    """A fit that stops after three epochs of ten has gone exactly the way of one that goes on."""
    goal = np.array([1.0, -1.0])
    names = [str(row) for row in range(300)]

    def walk(epochs: int) -> list[np.ndarray]:
        weight = np.zeros(2)
        steps = descend(
            [weight], lambda rows, epoch: [weight - goal], names, seed=0, horizon=10, epochs=epochs, rate=0.1
        )
        return [weight.copy() for _ in steps]

    whole, part = walk(10), walk(3)
    assert len(part) == 3
    np.testing.assert_array_equal(whole[2], part[2])
    assert np.abs(whole[-1] - goal).max() < 0.3 < np.abs(whole[0] - goal).max()


def test_the_best_epoch_stays_and_of_equals_the_first() -> None:
    weight = np.zeros(1)

    def epochs():  # type: ignore[no-untyped-def]
        for epoch in range(1, 6):
            weight[0] = epoch
            yield epoch

    assert keep_best([weight], epochs(), lambda: (float(weight[0] in (2, 4)), 0.0)) == 2
    assert weight[0] == 2
    weight[0] = 0
    assert keep_best([weight], epochs(), lambda: (0.0, -float(weight[0]))) == 0
    assert weight[0] == 0


def test_order_and_views_follow_names() -> None:
    task = Task(("a", "b"), np.eye(2, dtype=np.float32), 1.0)
    joint = np.arange(16, dtype=np.float32).reshape(8, 2)
    samples = Samples(task, np.array([1, 0, 1, 0]), Features(joint), views=2, names=["w", "z", "v", "y"])
    ordered = in_order(samples)
    assert list(ordered.names) == ["y", "z", "v", "w"]
    assert ordered.labels.tolist() == [0, 0, 1, 1]
    turned = in_order(samples.take(np.array([3, 0, 2, 1])))
    rows = np.arange(4)
    seen = set()
    for epoch in range(20):
        drawn = drawn_views(ordered, rows, epoch).joint
        np.testing.assert_array_equal(drawn, drawn_views(turned, rows, epoch).joint)
        np.testing.assert_array_equal(drawn[0] // 4, joint[6] // 4)  # one of the two views of "y"
        seen.add(float(drawn[0, 0]))
    assert seen == {12.0, 14.0}
