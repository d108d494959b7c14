"""The moving average against its definition."""

from __future__ import annotations

import pytest
import torch

from clipkit.training.ema import Average


def test_by_its_definition() -> None:
    weights = [{"a": torch.tensor([float(number), 1.0]), "b": torch.tensor(number * 2.0)} for number in range(6)]
    average = Average(weights[0], decay=0.3)
    expected = 0.0
    for step in range(1, 6):
        average.update(weights[step], step)
        decay = min(0.3, (1 + step) / (10 + step))  # 2/11, 3/12, 0.3, ...
        expected = decay * expected + (1 - decay) * step
        assert average.values["a"].tolist() == pytest.approx([expected, 1.0])
        assert float(average.values["b"]) == pytest.approx(2 * expected)
    assert weights[0]["a"].tolist() == [0, 1]  # it has values of its own
