"""Learning from another model's answers too, as open_clip computes it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from clipkit.methods.losses.base import Group, Loss, Outputs

if TYPE_CHECKING:
    import torch


@dataclass(kw_only=True)
class Distill(Loss):
    """CLIP's loss, and the cross-entropy between the teacher's probabilities and the student's, of texts for each image
    and of images for each text: what TinyCLIP calls affinity mimicking (Wu et al., 2023). Both weigh the same, and each
    model has its own logit scale. The teacher's features may have any width.
    """

    name: ClassVar[str] = "distill"
    teaches: ClassVar[bool] = True

    def __call__(self, outputs: Outputs, group: Group) -> dict[str, torch.Tensor]:
        import open_clip

        teacher = outputs.teacher
        assert teacher is not None
        loss = open_clip.DistillClipLoss(
            local_loss=True, gather_with_grad=True, rank=group.rank, world_size=group.world
        )
        contrastive, distillation = loss(
            outputs.image, outputs.caption, outputs.scale, teacher.image, teacher.caption, teacher.scale
        )
        return {"loss": contrastive + distillation, "contrastive": contrastive, "distillation": distillation}
