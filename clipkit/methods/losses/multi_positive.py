"""Several captions of an image at once, as DreamLIP trains on the sentences of a long one (Zheng et al., 2024)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from clipkit.methods.losses.base import Group, Loss, Outputs
from clipkit.methods.losses.clip import clip_loss
from clipkit.methods.parameters import param

if TYPE_CHECKING:
    import torch


@dataclass(kw_only=True)
class MultiPositive(Loss):
    """CLIP's loss with each of an image's captions in turn, averaged. An image with fewer of them repeats its own.

    Left out of DreamLIP: what compares captions with parts of the picture (their grouping and local contrast), whose
    code was never published.
    """

    name: ClassVar[str] = "multi-positive"
    texts: ClassVar[Literal["one", "many"]] = "many"

    captions: int = param(4, "captions of each image in a step", low=1)

    def __call__(self, outputs: Outputs, group: Group) -> dict[str, torch.Tensor]:
        loss = clip_loss(group)
        turns = repeated(outputs).unbind(1)
        return {"loss": sum(loss(outputs.image, text, outputs.scale) for text in turns) / len(turns)}


def repeated(outputs: Outputs) -> torch.Tensor:
    """The captions [b, m, d]; of an image that has fewer than m, they come again, in turn, in the empty places."""
    import torch

    device = outputs.text.device
    images, places = (torch.arange(count, device=device) for count in outputs.present.shape)
    return outputs.text[images[:, None], places % outputs.present.sum(1)[:, None]]
