"""tip-f: the gradient is torch's, training is what it says, the best epoch is chosen on validation data."""

from __future__ import annotations

import numpy as np
import pytest

from clipkit.methods.adapters.data import Features
from clipkit.methods.adapters.tip import Tip
from clipkit.methods.adapters.tip_f import TipF, keys_slope
from clipkit.methods.adapters.tuning import cross_entropy, score
from tests.methods.adapters.test_tip import made


def test_gradient_is_torchs() -> None:
    torch = pytest.importorskip("torch")
    draw = np.random.default_rng(0)
    labels, targets = np.array([0, 0, 2, 3, 3]), np.array([2, 0, 1])  # class 1 has no key
    keys, rows, base = draw.standard_normal((5, 6)), draw.standard_normal((3, 6)), draw.standard_normal((3, 4))
    given = torch.tensor(keys, requires_grad=True)
    votes = torch.exp(-1.5 * (1 - torch.from_numpy(rows) @ given.T)) @ torch.eye(4, dtype=torch.float64)[labels]
    means = votes[:, [0, 2, 3]] * (5 / 3) / torch.tensor([2, 1, 2])
    evened = torch.stack([means[:, 0], means.mean(axis=1), means[:, 1], means[:, 2]], dim=1)
    logits = torch.from_numpy(base) + 0.7 * evened
    torch.nn.functional.cross_entropy(logits, torch.from_numpy(targets)).backward()
    slope = keys_slope(keys, labels, rows, targets, base, 0.7, 1.5)
    np.testing.assert_allclose(slope, given.grad.numpy(), rtol=1e-6, atol=1e-10)


def test_training_is_torchs() -> None:
    """Keys after some epochs of one batch, against torch's layer, loss, AdamW and schedule."""
    torch = pytest.importorskip("torch")
    support = made("backbone", shots=4)
    task, rows = support.task, torch.from_numpy(support.plain.backbone.astype(np.float64))
    keys = torch.nn.Parameter(rows.clone())
    method = torch.optim.AdamW([keys], lr=1e-3, eps=1e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(method, 7)
    base = torch.from_numpy(task.zero_shot(support.plain))
    values = torch.eye(4, dtype=torch.float64)[support.labels]
    for _ in range(7):
        logits = base + 10 * torch.exp(-3 * (1 - rows @ keys.T)) @ values
        method.zero_grad()
        torch.nn.functional.cross_entropy(logits, torch.from_numpy(support.labels)).backward()
        method.step()
        schedule.step()
    ours = TipF(epochs=7).fit(support)
    order = np.lexsort((np.array(support.names), support.labels))
    np.testing.assert_allclose(ours.state_["keys"], keys.detach().numpy()[order], atol=1e-5)
    assert np.abs(ours.state_["keys"] - support.plain.backbone[order]).max() > 1e-3


def test_without_epochs_it_is_tip() -> None:
    support, query = made(), made(seed=1).plain
    np.testing.assert_array_equal(TipF(epochs=0).fit(support).logits(query), Tip().fit(support).logits(query))


def test_training_lowers_the_loss_and_learns() -> None:
    support, query = made(shots=8, count=10), made(seed=99, shots=50, count=10)
    before, after = Tip().fit(support), TipF().fit(support)
    assert cross_entropy(after.logits(support.plain), support.labels) < cross_entropy(
        before.logits(support.plain), support.labels
    )
    zero_shot = score(query.task.zero_shot(query.plain), query.labels)[0]
    assert score(after.logits(query.plain), query.labels)[0] >= zero_shot - 0.005


def test_the_chosen_epoch_is_the_best_and_a_refit_honours_it() -> None:
    support, validation = made(shots=3), made(seed=1, shots=6)
    fitted = TipF().fit(support, validation)
    assert set(fitted.chosen_) == {"epochs", "alpha", "beta"}
    again = TipF().fit(support, chosen=fitted.chosen_)
    np.testing.assert_array_equal(again.state_["keys"], fitted.state_["keys"])
    np.testing.assert_array_equal(again.logits(validation.plain), fitted.logits(validation.plain))

    def at(epochs: int) -> tuple[float, float]:
        stopped = TipF().fit(support, chosen={"epochs": epochs})
        return score(stopped.logits(validation.plain), validation.labels)

    assert at(fitted.chosen_["epochs"]) == max(at(epochs) for epochs in range(21))


def test_order_is_nothing_and_views_are_used() -> None:
    query = made(seed=2).plain
    support = made(shots=6, views=3)
    shuffled = support.take(np.random.default_rng(0).permutation(len(support)))
    one = TipF().fit(support)
    np.testing.assert_array_equal(one.logits(query), TipF().fit(shuffled).logits(query))
    assert np.isfinite(one.logits(Features(query.joint[:1], None))).all()
    keys = support.mean_view()
    assert one.state_["keys"].shape == keys.shape


def test_given_epochs_are_walked_whatever_validation_says() -> None:
    support, validation = made(), made(seed=1)
    fitted = TipF(epochs=5).fit(support, validation)
    assert set(fitted.chosen_) == {"alpha", "beta"}
    np.testing.assert_array_equal(fitted.state_["keys"], TipF(epochs=5).fit(support).state_["keys"])
