"""The exponential moving average of what is trained."""

from __future__ import annotations

from collections.abc import Mapping

import torch


class Average:
    """Averages of some weights, f32 as these are, by name, beginning at what they are now.

    After step t: average += (1 - d) (weight - average), d = min(decay, (1 + t) / (10 + t)): early on it follows
    quickly, so that random first weights do not stay in it (the warm-up of TensorFlow's moving average).
    """

    def __init__(self, weights: Mapping[str, torch.Tensor], decay: float) -> None:
        self._decay = decay
        self.values = {name: value.detach().clone() for name, value in weights.items()}

    @torch.no_grad()
    def update(self, weights: Mapping[str, torch.Tensor], step: int) -> None:
        """After step `step`, from 1."""
        decay = min(self._decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(list(self.values.values()), [weights[name].detach() for name in self.values], 1 - decay)
