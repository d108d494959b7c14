"""clip-adapter: the paper's form in float64, gradients against torch, the ratio and the epoch chosen."""

from __future__ import annotations

import numpy as np
import pytest

from clipkit.errors import UsageError
from clipkit.methods.adapters.clip_adapter import ClipAdapter, bottleneck_slope, first_weights
from clipkit.methods.adapters.tuning import score
from tests.methods.adapters.test_tip import made


@pytest.mark.parametrize("space", ["joint", "backbone"])
def test_logits_are_the_papers(space: str) -> None:
    support, query = made(space), made(space, seed=1).plain
    fitted = ClipAdapter(ratio=0.3, epochs=5).fit(support)
    down, up = (fitted.state_[name].astype(np.float64) for name in ("down", "up"))
    expected = []
    for joint, row in zip(query.joint.astype(np.float64), query.of(space).astype(np.float64), strict=True):
        mixed = 0.3 * np.maximum(up @ np.maximum(down @ row, 0), 0) + 0.7 * joint
        expected.append(20.0 * support.task.text.astype(np.float64) @ (mixed / np.sqrt(mixed @ mixed)) - 3.0)
    np.testing.assert_allclose(fitted.logits(query), expected, atol=1e-10)
    assert down.shape == ((16 if space == "joint" else 24) // 4, 16 if space == "joint" else 24)
    assert up.shape == (16, len(down))
    assert fitted.fold() is None


def test_gradients_are_torchs() -> None:
    torch = pytest.importorskip("torch")
    draw = np.random.default_rng(0)
    down, up, rows, joint, text = (draw.standard_normal(shape) for shape in ((3, 12), (8, 3), (5, 12), (5, 8), (4, 8)))
    targets = np.array([0, 3, 2, 2, 1])
    given = [torch.tensor(array, requires_grad=True) for array in (down, up)]
    made = torch.relu(torch.relu(torch.from_numpy(rows) @ given[0].T) @ given[1].T)
    mixed = torch.nn.functional.normalize(0.4 * made + 0.6 * torch.from_numpy(joint), dim=1)
    logits = 5 * mixed @ torch.from_numpy(text).T
    torch.nn.functional.cross_entropy(logits, torch.from_numpy(targets)).backward()
    slopes = bottleneck_slope(down, up, rows, joint, targets, text, 5.0, 0.4)
    for slope, theirs in zip(slopes, given, strict=True):
        np.testing.assert_allclose(slope, theirs.grad.numpy(), atol=1e-10)


def test_ratio_0_is_zero_shot() -> None:
    support, query = made(), made(seed=1).plain
    fitted = ClipAdapter(ratio=0.0, epochs=1).fit(support)
    np.testing.assert_array_equal(fitted.logits(query), support.task.zero_shot(query))


def test_a_ratio_above_1_is_refused() -> None:
    with pytest.raises(UsageError, match="at most 1"):
        ClipAdapter(ratio=1.5).fit(made())


def test_seeds_draw_weights_of_their_own() -> None:
    down, up = first_weights(64, 32, 0)
    assert down.shape == (16, 64)
    assert up.shape == (32, 16)
    assert 0.9 / 8 < np.abs(down).max() <= 1 / 8
    assert 0.9 / 4 < np.abs(up).max() <= 1 / 4
    np.testing.assert_array_equal(down, first_weights(64, 32, 0)[0])
    assert (down != first_weights(64, 32, 1)[0]).any()


def test_order_is_nothing_and_one_row_is_alone() -> None:
    support, query = made("backbone", shots=6, views=2), made("backbone", seed=2).plain
    shuffled = support.take(np.random.default_rng(0).permutation(len(support)))
    one = ClipAdapter(epochs=10).fit(support)
    np.testing.assert_array_equal(one.logits(query), ClipAdapter(epochs=10).fit(shuffled).logits(query))
    np.testing.assert_allclose(one.logits(query.take(slice(2, 3))), one.logits(query)[2:3], atol=1e-12)


def test_epoch_and_ratio_are_chosen_and_a_refit_honours_them() -> None:
    support, validation = made("backbone", shots=3), made("backbone", seed=1, shots=6)
    fitted = ClipAdapter().fit(support, validation)
    assert set(fitted.chosen_) == {"epochs", "ratio"}
    again = ClipAdapter().fit(support, chosen=fitted.chosen_)
    np.testing.assert_array_equal(again.logits(validation.plain), fitted.logits(validation.plain))
    top = score(fitted.logits(validation.plain), validation.labels)
    assert top >= score(support.task.zero_shot(validation.plain), validation.labels)
    assert top >= score(ClipAdapter().fit(support).logits(validation.plain), validation.labels)


@pytest.mark.parametrize("shots", [1, 4])
@pytest.mark.parametrize("space", ["joint", "backbone"])
def test_untuned_is_no_worse_than_zero_shot(space: str, shots: int) -> None:
    query = made(space, seed=99, shots=50, count=10)
    before = score(query.task.zero_shot(query.plain), query.labels)[0]
    after = score(ClipAdapter().fit(made(space, shots=shots, count=10)).logits(query.plain), query.labels)[0]
    assert after >= before - 0.005
