"""The loss of CoCa (Yu et al., 2022), as open_clip computes it: contrast, and captions token by token."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from clipkit.methods.losses.base import DecodingLoss, Group, Outputs
from clipkit.methods.losses.clip import clip_loss
from clipkit.methods.parameters import param

if TYPE_CHECKING:
    import torch


@dataclass(kw_only=True)
class CoCa(DecodingLoss):
    """CLIP's loss, and the cross-entropy of each next token of the caption, given the picture and those before it.

    With several processes, open_clip's takes the mean of their means, whatever the lengths of their captions; here the
    mean is over all tokens of the batch. As there, token 0 ("!" in CLIP's vocabulary) counts as padding.
    """

    name: ClassVar[str] = "coca"

    contrastive_weight: float = param(1.0, "weight of the contrast", low=0)
    caption_weight: float = param(2.0, "weight of the captions", low=0)

    def contrast(self, outputs: Outputs, group: Group) -> torch.Tensor:
        contrast: torch.Tensor = clip_loss(group)(outputs.image, outputs.caption, outputs.scale)
        return self.contrastive_weight * contrast

    def caption(self, outputs: Outputs) -> torch.Tensor:
        import open_clip

        assert outputs.logits is not None and outputs.tokens is not None
        loss = open_clip.CoCaLoss(caption_loss_weight=self.caption_weight, clip_loss_weight=0)
        nothing = outputs.image, outputs.caption  # not looked at, as the contrast is not
        _, caption = loss(*nothing, _at_least_f32(outputs.logits), outputs.tokens, outputs.scale)
        weighed: torch.Tensor = caption
        return weighed


def _at_least_f32(logits: torch.Tensor) -> torch.Tensor:
    return logits.float() if logits.itemsize < 4 else logits
