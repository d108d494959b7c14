"""What a run does where nobody said, and what it is refused."""

from __future__ import annotations

from typing import Any

import pytest

from clipkit.errors import ClipkitError, UsageError
from clipkit.training.planning import check, plan


@pytest.mark.parametrize(
    ("asked", "count", "trained", "wanted"),
    [
        ({}, 100_000, False, {"batch_size": 256, "steps": 12_500, "warmup": 1250, "lr": 5e-4, "weight_decay": 0.2}),
        ({}, 1_000_000, False, {"steps": 125_000, "warmup": 2000}),
        ({}, 100, False, {"batch_size": 100, "steps": 1000, "warmup": 100}),
        ({}, 100, True, {"steps": 100, "lr": 1e-5}),
        ({"epochs": 0.01}, 1000, True, {"steps": 1, "warmup": 0}),
        ({"samples": 1000, "batch_size": 300}, 5000, False, {"steps": 4}),
        ({"steps": 7, "lr": None}, 5000, False, {"steps": 7, "lr": 5e-4}),
        ({"lora_rank": 8}, 5000, True, {"lr": 2e-4}),
        ({"lock_image": True}, 5000, True, {"lr": 5e-4}),
        ({"optimizer": "lion"}, 5000, False, {"lr": 1e-4, "weight_decay": 1.0}),
    ],
)
def test_what_nobody_said(asked: dict[str, Any], count: int, trained: bool, wanted: dict[str, Any]) -> None:
    settings = plan(asked, count, trained=trained)
    assert {name: getattr(settings, name) for name in wanted} == pytest.approx(wanted)
    assert settings.precision == "f32" and plan(asked, count, trained=trained, device="cuda:0").precision == "bf16"


def test_processes_share_a_batch_evenly() -> None:
    assert plan({}, 1000, trained=False, world=3).batch_size == 255
    assert plan({}, 11, trained=False, world=4).batch_size == 8
    with pytest.raises(UsageError, match="cannot be shared by 3"):
        plan({"batch_size": 256}, 1000, trained=False, world=3)
    with pytest.raises(ClipkitError, match="3 pairs are too few"):
        plan({}, 3, trained=False, world=2)


@pytest.mark.parametrize(
    "asked",
    [
        {"steps": 1, "epochs": 1},
        {"epochs": 1, "samples": 1},
        {"epochs": 0},
        {"ema": 0},
        {"ema": 1.5},
        {"clip_norm": 0},
        {"layer_decay": 0},
        {"lock_image": True, "lock_text": True},
        {"optimizer": "sgd"},
        {"batch_size": "many"},
    ],
)
def test_contradictions(asked: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        check(asked, trained=True)


@pytest.mark.parametrize("asked", [{"lock_image": True}, {"lock_text": True}, {"lora_rank": 1}])
def test_random_weights_are_not_kept(asked: dict[str, Any]) -> None:
    check(asked, trained=True)
    with pytest.raises(UsageError, match="random"):
        check(asked, trained=False)
