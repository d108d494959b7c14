"""The contrastive losses of CLIP (Radford et al., 2021) and SigLIP (Zhai et al., 2023), as open_clip computes them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import open_clip

from clipkit.methods.losses.base import Group, Loss, Outputs
from clipkit.methods.parameters import param

if TYPE_CHECKING:
    import torch


@dataclass(kw_only=True)
class Clip(Loss):
    """Cross-entropy of each image among all texts of the batch, and of each text among all images; their mean."""

    name: ClassVar[str] = "clip"

    local: bool = param(True, "with several processes: each computes its own rows of the matrix only")

    def __call__(self, outputs: Outputs, group: Group) -> dict[str, torch.Tensor]:
        loss = open_clip.ClipLoss(local_loss=self.local, gather_with_grad=True, rank=group.rank, world_size=group.world)
        return {"loss": loss(outputs.image, outputs.caption, outputs.scale, outputs.bias)}
