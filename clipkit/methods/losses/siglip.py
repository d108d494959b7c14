"""The sigmoid loss of SigLIP (Zhai et al., 2023), as open_clip computes it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from clipkit.methods.losses.base import Group, Loss, Outputs

if TYPE_CHECKING:
    import torch


@dataclass(kw_only=True)
class SigLip(Loss):
    """Each image with each text of the batch is a question of its own, pair or no pair: log-loss, summed over the
    texts, averaged over the images. Needs a logit bias, as most of these are no pairs."""

    name: ClassVar[str] = "siglip"
    needs_bias: ClassVar[bool] = True
    scale: ClassVar[float | None] = 10.0
    bias: ClassVar[float | None] = -10.0

    def __call__(self, outputs: Outputs, group: Group) -> dict[str, torch.Tensor]:
        from open_clip.loss import SigLipLoss

        loss = SigLipLoss(rank=group.rank, world_size=group.world)
        return {"loss": loss(outputs.image, outputs.caption, outputs.scale, outputs.bias)}
