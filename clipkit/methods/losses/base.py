"""The seam between the training loop and a loss: what the towers gave for one batch, and the numbers made of it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, Self

from clipkit.methods.parameters import Parametrised

if TYPE_CHECKING:
    import torch


class Group(Protocol):
    """The processes that train together, each with as many pairs of a batch as the others. Alone: rank 0 of 1.

    Of several, torch.distributed's default group is theirs: open_clip's own losses speak to it directly.
    """

    @property
    def rank(self) -> int: ...

    @property
    def world(self) -> int: ...

    def gather(self, rows: torch.Tensor) -> torch.Tensor:
        """The rows of all processes, [world * b, ...], by rank. Gradients flow back to where each row came from, summed
        over the processes. Rows that need no gradient may be of any type."""


@dataclass(frozen=True)
class Outputs:
    """One process's share of a batch: b pairs, d = width of the joint space. Tensors on one device, with gradients, in
    f32 (or f64), whatever the model computes in.

    image: unit rows [b, d]. text: unit rows [b, m, d], m captions of each image (m is 1 but for losses of `many`).
    present: bool [b, m], which of these are there (an image with fewer captions has zero rows behind); the first is.
    m is the same in all processes.
    scale: exponentiated logit scale, scalar. bias: logit bias, scalar, or None for a model without one.
    negatives: unit rows [b, k, d] of captions that are not true, and negatives_present bool [b, k]; None without any.
    logits, tokens: the decoder's [b, l, vocabulary] and what it should have said, int64 [b, l] (0: padding); None
    unless the loss `decodes`. teacher: what another model says of the same batch, without gradients, or None.
    """

    image: torch.Tensor
    text: torch.Tensor
    present: torch.Tensor
    scale: torch.Tensor
    bias: torch.Tensor | None = None
    negatives: torch.Tensor | None = None
    negatives_present: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    tokens: torch.Tensor | None = None
    teacher: Outputs | None = None

    @property
    def caption(self) -> torch.Tensor:
        """The first caption of each image, [b, d], contiguous as what is sent has to be."""
        return self.text[:, 0].contiguous()

    def gathered(self, group: Group) -> Self:
        """The same of all processes; the decoder's output stays as it is."""
        if group.world == 1:
            return self
        names = ("image", "text", "present", "negatives", "negatives_present")
        rows = {name: group.gather(value) for name in names if (value := getattr(self, name)) is not None}
        return replace(self, **rows, teacher=self.teacher and self.teacher.gathered(group))


@dataclass(kw_only=True)
class Loss(Parametrised):
    """A loss of image-text training; its fields made by `param` are what a user may set.

    texts: how many captions of an image it looks at: one, drawn, or many (`captions` of them, a parameter).
    negatives: whether it uses captions that are not true. decodes: whether it needs a model with a decoder (CoCa).
    teaches: whether it needs a teacher. needs_bias: whether the model has a logit bias (SigLIP).
    scale: the logit scale (not its logarithm) that a new model starts with, None for its architecture's own; where
    `trains_scale` is False, every model has it, and keeps it. bias: the logit bias that a new model starts with.
    """

    texts: ClassVar[Literal["one", "many"]] = "one"
    negatives: ClassVar[bool] = False
    decodes: ClassVar[bool] = False
    teaches: ClassVar[bool] = False
    needs_bias: ClassVar[bool] = False
    scale: ClassVar[float | None] = None
    bias: ClassVar[float | None] = None
    trains_scale: ClassVar[bool] = True

    @classmethod
    def describe(cls) -> dict[str, Any]:
        """For `clipkit methods losses --json`."""
        return {"about": cls.about(), "params": cls.described()}

    def __call__(self, outputs: Outputs, group: Group) -> dict[str, torch.Tensor]:
        """`loss`, a scalar with gradients, and its parts under names of their own.

        The mean over processes of `loss`' gradients is that of one process with the whole batch.
        """
        raise NotImplementedError


@dataclass(kw_only=True)
class DecodingLoss(Loss):
    """A loss that has two parts: of the features of the whole batch, and of what a decoder says, caption by caption."""

    decodes: ClassVar[bool] = True

    def contrast(self, outputs: Outputs, group: Group) -> torch.Tensor:
        """The part of the features."""
        raise NotImplementedError

    def caption(self, outputs: Outputs) -> torch.Tensor:
        """The part of the decoder: a mean over the tokens that it should have said."""
        raise NotImplementedError

    def __call__(self, outputs: Outputs, group: Group) -> dict[str, torch.Tensor]:
        assert outputs.tokens is not None
        contrastive = self.contrast(outputs, group)
        caption = of_all_tokens(self.caption(outputs), outputs.tokens, outputs.tokens, group)
        return {"loss": contrastive + caption, "contrastive": contrastive, "caption": caption}


def of_all_tokens(mean: torch.Tensor, part: torch.Tensor, tokens: torch.Tensor, group: Group) -> torch.Tensor:
    """A mean over the tokens of `part`, of this process's `tokens` (int64 [b, l], 0: padding), weighed so that the sum
    over the parts, averaged over the processes, is the mean over the tokens of the batch, long captions or short."""
    everywhere = group.gather((tokens != 0).sum().view(1)).sum()
    return mean * ((part != 0).sum() * group.world) / everywhere
