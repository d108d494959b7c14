"""The processes that train together, as torchrun starts them."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Alone:
    """One process."""

    rank: int = 0
    world: int = 1

    def gather(self, rows: torch.Tensor) -> torch.Tensor:
        return rows

    def average(self, gradients: list[torch.Tensor]) -> None:
        """Make each gradient the mean over the processes, in place."""
