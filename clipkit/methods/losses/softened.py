"""CLIP's loss with softened targets, as PyramidCLIP has them (Gao et al., 2022)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from clipkit.methods.losses.base import Group, Loss, Outputs
from clipkit.methods.losses.clip import clip_loss
from clipkit.methods.parameters import param

if TYPE_CHECKING:
    import torch


@dataclass(kw_only=True)
class Softened(Loss):
    """CLIP's loss, but a pair's share of the truth is 1 - alpha; alpha is spread over the batch's other pairs, which
    may fit too. alpha 0 is CLIP's. Left out of PyramidCLIP: the levels of its pyramid, which need a detector.
    """

    name: ClassVar[str] = "softened"

    alpha: float = param(0.2, "share of the truth that the other pairs of the batch have together, under 1", low=0)

    def __post_init__(self) -> None:
        if not 0 <= self.alpha < 1:
            raise ValueError(f"alpha of softened is from 0 to under 1, not {self.alpha:g}")

    def __call__(self, outputs: Outputs, group: Group) -> dict[str, torch.Tensor]:
        from torch.nn import functional

        loss = clip_loss(group)
        images, texts = loss.get_logits(outputs.image, outputs.caption, outputs.scale)
        truth = loss.get_ground_truth(images.device, len(images))
        targets = softened(truth, images, self.alpha)
        return {"loss": (functional.cross_entropy(images, targets) + functional.cross_entropy(texts, targets)) / 2}


def softened(truth: torch.Tensor, logits: torch.Tensor, alpha: float) -> torch.Tensor:
    """The targets [b, n] of logits [b, n], of which `truth` int64 [b] is each row's own. A single one keeps all."""
    import torch

    others = logits.shape[1] - 1
    if not others:
        return torch.ones_like(logits)
    return torch.full_like(logits, alpha / others).scatter_(1, truth[:, None], 1 - alpha)
