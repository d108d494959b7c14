"""Captions that are true of a picture, and captions that nearly are, after HQ-CLIP (Wei et al., 2025)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from clipkit.methods.losses.base import Group, Loss, Outputs
from clipkit.methods.losses.clip import clip_loss
from clipkit.methods.losses.multi_positive import repeated
from clipkit.methods.parameters import param

if TYPE_CHECKING:
    import torch


@dataclass(kw_only=True)
class HqClip(Loss):
    """CLIP's loss where an image has to tell its caption from its own negative ones too.

    The code was not published and this is a reading of the paper: an image's true captions (long, short) take turns, as
    in multi-positive; its negatives are further wrong answers to it, and to no other image; a text is compared with all
    images as ever. Without negatives it is multi-positive. Left out: tags as classes, which need a head of their own.
    """

    name: ClassVar[str] = "hq-clip"
    texts: ClassVar[Literal["one", "many"]] = "many"
    negatives: ClassVar[bool] = True

    captions: int = param(2, "true captions of each image in a step", low=1)

    def __call__(self, outputs: Outputs, group: Group) -> dict[str, torch.Tensor]:
        import torch
        from torch.nn import functional

        loss = clip_loss(group)
        wrong = self._wrong(outputs)
        turns = repeated(outputs).unbind(1)
        total = outputs.image.new_zeros(())
        for text in turns:
            images, texts = loss.get_logits(outputs.image, text, outputs.scale)
            truth = loss.get_ground_truth(images.device, len(images))
            asked = images if wrong is None else torch.cat([images, wrong], dim=1)
            total = total + functional.cross_entropy(asked, truth) + functional.cross_entropy(texts, truth)
        return {"loss": total / (2 * len(turns))}

    def _wrong(self, outputs: Outputs) -> torch.Tensor | None:
        """Logits [b, k] of each image with its negatives; minus infinity where there is none."""
        import torch

        if outputs.negatives is None or outputs.negatives_present is None:
            return None
        logits = outputs.scale * torch.einsum("bd,bkd->bk", outputs.image, outputs.negatives)
        return logits.masked_fill(~outputs.negatives_present, -torch.inf)
