"""The learning rate over a run, against closed formulas and open_clip's training."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from open_clip_train import scheduler

from clipkit.training.schedules import rate
from clipkit.training.settings import Settings


@pytest.mark.parametrize(("schedule", "theirs"), [("cosine", scheduler.cosine_lr), ("constant", scheduler.const_lr)])
@given(steps=st.integers(1, 60), share=st.floats(0, 1))
def test_as_open_clip_has_it(schedule: Any, theirs: Any, steps: int, share: float) -> None:
    settings = Settings(steps=steps, warmup=int(share * steps), lr=3e-4, schedule=schedule)
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    at = theirs(optimizer, settings.lr, settings.warmup, steps)
    for step in range(1, steps + 1):
        assert rate(settings, step) == pytest.approx(at(step - 1), rel=1e-12, abs=1e-18)


def test_by_hand() -> None:
    common: Any = {"steps": 10, "warmup": 2, "lr": 0.8}
    rates = {
        kind: [rate(Settings(schedule=kind, **common), step) for step in (1, 2, 3, 7, 10)]
        for kind in ("cosine", "linear", "constant")
    }
    last = 0.4 * (1 + math.cos(math.pi * 7 / 8))
    assert rates["cosine"] == pytest.approx([0.4, 0.8, 0.8, 0.4, last])
    assert rates["linear"] == pytest.approx([0.4, 0.8, 0.8, 0.4, 0.1])
    assert rates["constant"] == pytest.approx([0.4, 0.8, 0.8, 0.8, 0.8])
