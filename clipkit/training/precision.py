"""What a model computes in while it learns. Weights, their averages and the optimizer's state are f32 throughout."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import torch

_DTYPES: Final = {"bf16": torch.bfloat16, "f16": torch.float16}
_GROWTH: Final = 2000


def lowered(device: str, precision: str) -> torch.autocast:
    """A context in which the towers compute in `precision` (f32, bf16, f16) where torch holds this to be safe."""
    kind = device.partition(":")[0]
    return torch.autocast(kind, dtype=_DTYPES.get(precision, torch.bfloat16), enabled=precision in _DTYPES)


class LossScale:
    """What the loss is multiplied by in f16, so that small gradients don't vanish (Micikevicius et al., 2018, "Mixed
    Precision Training"); 1 in other precisions, and stays so.

    Starts at 2 ** 16; is halved when a gradient overflows (that step is left out), and doubled after 2,000 steps in
    which none did, as in torch's GradScaler, without waiting for the device.
    """

    def __init__(self, precision: str) -> None:
        self.enabled = precision == "f16"
        self.factor, self._good = 2.0**16 if self.enabled else 1.0, 0

    def update(self, overflow: bool) -> None:
        """After each step."""
        if not self.enabled:
            return
        self._good = 0 if overflow else self._good + 1
        if overflow:
            self.factor = max(1.0, self.factor / 2)
        elif self._good == _GROWTH:
            self.factor, self._good = self.factor * 2, 0

    def state(self) -> dict[str, torch.Tensor]:
        return {"factor": torch.tensor(self.factor), "good": torch.tensor(self._good)} if self.enabled else {}

    def load(self, saved: Mapping[str, torch.Tensor]) -> None:
        """Take what `state` gave. Raises ValueError for what was saved in another precision."""
        if saved.keys() != self.state().keys():
            raise ValueError("it was trained in another precision")
        if saved:
            self.factor, self._good = float(saved["factor"]), int(saved["good"])
