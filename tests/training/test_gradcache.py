"""A batch in chunks: the gradients of the whole, in the memory of a part."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from clipkit.errors import UsageError
from clipkit.methods import LOSSES
from clipkit.models.load import load
from clipkit.models.open_clip import OpenClipEncoder
from clipkit.training.distributed import Alone
from clipkit.training.gradcache import backward
from clipkit.training.loader import Batch
from clipkit.training.settings import Settings
from clipkit.training.student import Student
from tests.training.students import batch, encoder, student


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def gradients(learns: Student) -> dict[str, torch.Tensor]:
    """What `backward` left, which is taken away."""
    found = {name: value.grad.clone() for name, value in learns.parameters().items() if value.grad is not None}
    learns.model.zero_grad()
    return found


def close(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor], within: float) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(
            found[name], value, rtol=within, atol=within, msg=lambda said, of=name: f"{of}: {said}"
        )


@pytest.mark.parametrize(
    ("name", "chunk"), [*((entry.name, 4) for entry in LOSSES), ("multi-positive", 1), ("coca", 1)]
)
def test_chunks_have_the_gradients_of_the_batch(name: str, chunk: int) -> None:
    learns = student(name)
    pairs = batch(learns)
    whole = backward(learns, pairs, learns.loss, Alone())
    expected = gradients(learns)
    said = backward(learns, pairs, learns.loss, Alone(), chunk)
    assert said.keys() == whole.keys()
    for part, value in whole.items():
        torch.testing.assert_close(said[part], value, rtol=1e-12, atol=1e-12)
    close(gradients(learns), expected, 1e-10)
    assert "logit_scale" in expected or not learns.loss.trains_scale
    assert ("logit_bias" in expected) == learns.loss.needs_bias


@pytest.mark.parametrize("name", ["clip", "siglip", "coca"])
def test_in_f32(name: str) -> None:
    learns = student(name, double=False)
    pairs = batch(learns, double=False)
    backward(learns, pairs, learns.loss, Alone())
    expected = gradients(learns)
    backward(learns, pairs, learns.loss, Alone(), 2)
    close(gradients(learns), expected, 1e-5)


@pytest.mark.parametrize("precision", ["bf16", "f16"])
@pytest.mark.parametrize("name", ["clip", "coca"])
def test_in_half_precision(name: str, precision: str) -> None:
    """Also where the caller computes in it already: weights lowered in the first pass are not the second's."""
    learns = student(name, double=False, precision=precision)
    pairs = batch(learns, double=False)
    backward(learns, pairs, learns.loss, Alone(), factor=64.0)
    expected = gradients(learns)
    with torch.autocast("cpu", dtype=torch.bfloat16 if precision == "bf16" else torch.float16):
        said = backward(learns, pairs, learns.loss, Alone(), 2, factor=64.0)
    assert said["loss"].dtype == torch.float32
    close(
        {name: value / 64 for name, value in gradients(learns).items()}, {n: v / 64 for n, v in expected.items()}, 2e-2
    )


def test_the_factor_is_the_gradients_alone() -> None:
    learns = student("coca")
    pairs = batch(learns)
    said = backward(learns, pairs, learns.loss, Alone(), 4)
    once = gradients(learns)
    again = backward(learns, pairs, learns.loss, Alone(), 4, factor=1024.0)
    assert said == again
    close(gradients(learns), {name: 1024 * value for name, value in once.items()}, 1e-12)


def test_what_is_dropped_out_is_the_same_in_both_passes() -> None:
    """The gradient that chunks give is that of the loss they report: it is what finite differences of it say."""
    learns = student("clip", "small-dropout")
    pairs = batch(learns)

    def loss() -> float:
        torch.manual_seed(3)
        return float(backward(learns, pairs, learns.loss, Alone(), 4)["loss"])

    before = loss()
    after = torch.get_rng_state()
    found = gradients(learns)["visual.conv1.weight"]
    place = tuple(int(i) for i in (found.abs() == found.abs().max()).nonzero()[0])
    values, weight = [], learns.model.visual.conv1.weight.data
    for move in (1e-5, -1e-5):
        weight[place] += move
        values.append(loss())
        weight[place] -= move
    assert float(found[place]) == pytest.approx((values[0] - values[1]) / 2e-5, rel=1e-5)
    assert loss() == pytest.approx(before, rel=1e-14) and torch.equal(torch.get_rng_state(), after)


def test_a_locked_tower_runs_once(tmp_path: Path) -> None:
    encoder().save_model(tmp_path / "model")  # read again, its weights count as learnt
    learnt = load(f"{tmp_path}/model/", device="cpu", precision="f32")
    assert isinstance(learnt, OpenClipEncoder)
    locked = Student(learnt, Settings(lock_image=True), LOSSES.get("clip").from_settings({}))
    pairs = batch(locked, double=False)
    backward(locked, pairs, locked.loss, Alone())
    expected = gradients(locked)
    seen = []
    locked.model.visual.register_forward_hook(lambda _, args, __: seen.append(len(args[0])))
    backward(locked, pairs, locked.loss, Alone(), 4)
    close(gradients(locked), expected, 1e-5)
    assert seen == [4, 2] and not any(name.startswith("visual.") for name in expected)


def test_batch_normalisation_is_refused() -> None:
    learns = student("clip", "small-resnet", double=False)
    pairs = batch(learns, double=False)
    with pytest.raises(UsageError, match="batch normalisation"):
        backward(learns, pairs, learns.loss, Alone(), 4)
    backward(learns, pairs, learns.loss, Alone(), 6)  # all at once: it is no chunk
    learns.model.visual.eval()  # as a locked tower is
    backward(learns, pairs, learns.loss, Alone(), 4)


@contextmanager
def saved() -> Iterator[list[int]]:
    """Bytes kept for a backward pass, and the most there were at once: [now, most]. Parameters are not counted."""
    count = [0, 0]

    class Held:
        def __init__(self, tensor: torch.Tensor) -> None:
            self.tensor = tensor.detach()  # else a result that is saved for its own gradient is never let go
            size = 0 if tensor.is_leaf and tensor.requires_grad else tensor.nbytes
            count[0] += size
            count[1] = max(count)
            weakref.finalize(self, lambda: count.__setitem__(0, count[0] - size))

    with torch.autograd.graph.saved_tensors_hooks(Held, lambda held: held.tensor):
        yield count


def _several(pairs: Batch, times: int) -> Batch:
    parts = {name: torch.cat([getattr(pairs, name)] * times) for name in ("pixels", "tokens", "present")}
    return replace(pairs, names=pairs.names * times, texts=pairs.texts * times, **parts)


def test_memory_is_that_of_a_chunk() -> None:
    learns = student(double=False)
    pairs = _several(batch(learns, double=False), 8)  # 48

    def most(chunk: int | None) -> int:
        with saved() as count:
            backward(learns, pairs, learns.loss, Alone(), chunk)
        assert count[0] == 0
        return count[1]

    whole, six, twelve = most(None), most(6), most(12)
    assert six < whole / 6
    assert twelve == pytest.approx(2 * six, rel=0.2)
