"""The contrastive loss of CLIP (Radford et al., 2021), as open_clip computes it, and what others build on it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from clipkit.methods.losses.base import Group, Loss, Outputs
from clipkit.methods.parameters import param

if TYPE_CHECKING:
    import open_clip
    import torch


@dataclass(kw_only=True)
class Clip(Loss):
    """Cross-entropy of each image among all texts of the batch, and of each text among all images; their mean."""

    name: ClassVar[str] = "clip"

    local: bool = param(True, "with several processes: each computes its own rows of the matrix only")

    def __call__(self, outputs: Outputs, group: Group) -> dict[str, torch.Tensor]:
        loss = clip_loss(group, local=self.local)
        return {"loss": loss(outputs.image, outputs.caption, outputs.scale)}


def clip_loss(group: Group, *, local: bool = True) -> open_clip.ClipLoss:
    """open_clip's. local: each process computes its own rows of the matrix, [b, world * b], not all of it.

    No bias is ever given to it: it moves all logits alike, which a softmax doesn't see; its gradient would be rounding
    errors, which Adam makes steps of.
    """
    import open_clip

    return open_clip.ClipLoss(local_loss=local, gather_with_grad=True, rank=group.rank, world_size=group.world)
