"""Each loss against its formula, gradients by finite differences; what is the same thing said twice; the edges."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from clipkit.errors import ClipkitError, UsageError
from clipkit.methods import LOSSES
from clipkit.methods.losses.infoloob import retrieved
from tests.methods.losses import naive

DIFFERENTIATED = ("image", "text", "scale", "bias", "negatives", "logits")
every_loss = pytest.mark.parametrize("name", [entry.name for entry in LOSSES])


def make(name: str, **settings: str) -> Any:
    return LOSSES.get(name).from_settings(settings)


def value(name: str, arrays: naive.Arrays, **settings: str) -> float:
    return float(make(name, **settings)(naive.outputs(arrays), naive.Alone())["loss"].detach())


def gradients(name: str, arrays: naive.Arrays, **settings: str) -> dict[str, np.ndarray]:
    """Of `loss`, by what it hangs on; zeros where it doesn't."""
    outputs = naive.outputs(arrays)
    make(name, **settings)(outputs, naive.Alone())["loss"].backward()
    found = {}
    for key in DIFFERENTIATED:
        leaf = getattr(outputs, key)
        found[key] = torch.zeros_like(leaf).numpy() if leaf.grad is None else leaf.grad.numpy()
    return found


def differences(formula: Callable[[naive.Arrays], float], arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Central ones; of what is there."""
    step = 1e-6
    found = {}
    for key in DIFFERENTIATED:
        slope = np.zeros_like(arrays[key])
        for place in np.ndindex(slope.shape):
            around = []
            for sign in (1, -1):
                moved = arrays[key].copy()
                moved[place] += sign * step
                around.append(formula({**arrays, key: moved}))
            slope[place] = (around[0] - around[1]) / (2 * step)
        found[key] = slope
    found["text"] = found["text"] * arrays["present"][:, :, None]
    return found


@every_loss
@pytest.mark.parametrize("seed", range(3))
def test_it_is_its_formula(name: str, seed: int) -> None:
    arrays = naive.arrays(seed)
    assert value(name, arrays) == pytest.approx(naive.LOSSES[name](arrays), rel=1e-12)


@every_loss
def test_its_gradients_are_the_formulas(name: str) -> None:
    arrays = naive.arrays(7)
    expected = differences(naive.LOSSES[name], arrays)
    for key, found in gradients(name, arrays).items():
        np.testing.assert_allclose(found, expected[key], rtol=1e-6, atol=1e-8, err_msg=key)


def test_infoloob_without_retrieval_is_its_formula() -> None:
    arrays = naive.arrays(5)

    def formula(a: naive.Arrays) -> float:
        return naive.infoloob(a, hopfield=False)

    assert value("infoloob", arrays, hopfield="false") == pytest.approx(formula(arrays), rel=1e-12)
    for key, found in gradients("infoloob", arrays, hopfield="false").items():
        np.testing.assert_allclose(found, differences(formula, arrays)[key], rtol=1e-6, atol=1e-8)


def test_infoloob_by_hand() -> None:
    """Two pairs along the axes, tau 1/30: a pair's logit is 30, its only other's 0; so 1/30 * (-30 + 0), both ways."""
    axes = np.eye(2)
    arrays = {
        **naive.arrays(pairs=2, captions=1, width=2),
        "image": axes,
        "text": axes[:, None],
        "scale": np.array(30.0),
    }
    assert value("infoloob", arrays, hopfield="false") == pytest.approx(-2.0, rel=1e-12)


def test_a_pattern_retrieves_itself_where_beta_is_large() -> None:
    patterns = torch.eye(4, dtype=torch.float64)
    noisy = patterns + 0.1
    torch.testing.assert_close(retrieved(noisy, patterns, 1000.0), patterns)
    mean = patterns.mean(0, keepdim=True) * 2  # of length 1
    torch.testing.assert_close(retrieved(noisy, patterns, 0.0), mean.expand(4, 4))


def test_softened_with_nothing_for_others_is_clip() -> None:
    arrays = naive.arrays(1)
    assert value("softened", arrays, alpha="0") == value("clip", arrays)


@pytest.mark.parametrize("name", ["multi-positive", "hq-clip"])
def test_one_caption_and_no_negatives_is_clip(name: str) -> None:
    arrays = naive.arrays(2, captions=1)
    arrays["negatives_present"][:] = False
    assert value(name, arrays) == pytest.approx(value("clip", arrays), rel=1e-14)


def test_negatives_raise_the_loss_of_their_image_alone() -> None:
    arrays = naive.arrays(3)
    arrays["negatives_present"][:] = False
    arrays["negatives_present"][1, 0] = True
    without = value("multi-positive", arrays)
    assert value("hq-clip", arrays) > without
    moved = gradients("hq-clip", arrays)["negatives"]
    assert np.abs(moved[1, 0]).min() > 0 and not np.abs(moved).sum() > np.abs(moved[1, 0]).sum()


def test_of_a_teacher_that_says_the_same_nothing_is_learnt() -> None:
    arrays = naive.arrays(4)
    same = {"teacher_image": arrays["image"], "teacher_text": arrays["text"][:, 0], "teacher_scale": arrays["scale"]}
    arrays |= same
    learnt, clip = gradients("distill", arrays), gradients("clip", arrays)
    for key, found in learnt.items():
        np.testing.assert_allclose(found, clip[key], atol=1e-15)


@every_loss
def test_the_order_of_the_batch_is_nothing(name: str) -> None:
    arrays = naive.arrays(6, pairs=6)
    order = np.random.default_rng(0).permutation(6)
    mixed = {key: held[order] if held.ndim else held for key, held in arrays.items()}
    assert value(name, mixed) == pytest.approx(value(name, arrays), rel=1e-12)


@every_loss
def test_gradients_reach_image_and_text(name: str) -> None:
    arrays = naive.arrays(8)
    found = gradients(name, arrays)
    assert np.isfinite(value(name, arrays))
    assert all(np.isfinite(slope).all() for slope in found.values())
    assert (np.abs(found["image"]).sum(1) > 0).all() and (np.abs(found["text"][:, 0]).sum(1) > 0).all()


@every_loss
def test_what_is_not_there_is_not_looked_at(name: str) -> None:
    arrays = naive.arrays(9)
    other = {**arrays, "text": arrays["text"] + 9.0 * ~arrays["present"][:, :, None]}
    other["negatives"] = arrays["negatives"] + 9.0 * ~arrays["negatives_present"][:, :, None]
    assert value(name, other) == value(name, arrays)


@every_loss
def test_f32_and_the_largest_scale(name: str) -> None:
    """Unit rows, the scale at its limit: nothing overflows, and f32 loses no more than it must."""
    arrays = naive.arrays(10, pairs=8, width=16)
    for key in ("image", "text", "negatives", "teacher_image", "teacher_text"):
        length = np.linalg.norm(arrays[key], axis=-1, keepdims=True)
        arrays[key] = arrays[key] / np.where(length, length, 1)
    arrays |= {"scale": np.array(100.0), "teacher_scale": np.array(100.0)}
    outputs = naive.outputs(arrays, dtype=torch.float32)
    said = make(name)(outputs, naive.Alone())
    assert said["loss"].dtype == torch.float32
    assert float(said["loss"].detach()) == pytest.approx(naive.LOSSES[name](arrays), rel=1e-4)
    said["loss"].backward()
    assert outputs.image.grad.isfinite().all() and outputs.text.grad.isfinite().all()


@every_loss
def test_one_pair(name: str) -> None:
    arrays = naive.arrays(11, pairs=1)
    if name == "infoloob":
        with pytest.raises(ClipkitError, match="the others of its batch"):
            value(name, arrays)
    else:
        assert value(name, arrays) == pytest.approx(naive.LOSSES[name](arrays), rel=1e-12, abs=1e-15)


def test_parts_add_up() -> None:
    outputs = naive.outputs(naive.arrays(12))
    for name in ("coca", "distill"):
        said = {key: float(part.detach()) for key, part in make(name)(outputs, naive.Alone()).items()}
        assert said.pop("loss") == pytest.approx(sum(said.values()), rel=1e-14) and len(said) == 2


def test_the_logit_bias_is_left_alone_where_it_is_nothing() -> None:
    """A softmax doesn't see it; and the rounding errors of a gradient of 0 would be steps of Adam's."""
    for name in ("clip", "multi-positive", "hq-clip", "softened", "distill", "coca", "infoloob"):
        outputs = naive.outputs(naive.arrays())
        make(name)(outputs, naive.Alone())["loss"].backward()
        assert outputs.bias.grad is None


@pytest.mark.parametrize("alpha", ["-0.1", "1", "1.5"])
def test_a_share_that_is_none(alpha: str) -> None:
    with pytest.raises(UsageError, match="alpha"):
        make("softened", alpha=alpha)
