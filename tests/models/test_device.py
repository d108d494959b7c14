"""The device and the precision: what is asked for, or a clear reason why not."""

from __future__ import annotations

import pytest
import torch

from clipkit.errors import ClipkitError, UsageError
from clipkit.models.device import choose, choose_precision, facts


def test_the_cpu_is_always_there() -> None:
    assert choose("cpu") == "cpu"
    assert choose("auto") in ("cpu", "cuda", "mps")


@pytest.mark.parametrize("device", ["gpu", "cuda:x", "cpu:1", "", "CUDA"])
def test_no_such_device(device: str) -> None:
    with pytest.raises(UsageError, match="no device"):
        choose(device)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_cuda_that_is_not_there() -> None:
    with pytest.raises(ClipkitError, match="cuda was asked for, but") as caught:
        choose("cuda:0")
    assert "--device cpu" in str(caught.value.hint)


@pytest.mark.skipif(torch.backends.mps.is_available(), reason="there is Metal")
def test_mps_that_is_not_there() -> None:
    with pytest.raises(ClipkitError, match="mps was asked for, but"):
        choose("mps")


def test_precision() -> None:
    assert choose_precision("cpu") == "f32"
    assert choose_precision("mps") == "f16"
    assert choose_precision("cuda:1", "f32") == "f32"
    with pytest.raises(UsageError, match="f16 does not run on cpu"):
        choose_precision("cpu", "f16")


def test_doctor_says_what_to_expect() -> None:
    found = {fact.name: fact for fact in facts()}
    assert found["torch"].value == torch.__version__
    if choose() == "cpu":
        assert "images/s expected" in found["speed"].value
