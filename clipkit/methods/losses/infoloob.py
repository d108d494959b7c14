"""InfoLOOB on patterns that Hopfield networks retrieve, the loss of CLOOB (Fürst et al., 2022)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from clipkit.errors import ClipkitError
from clipkit.methods.losses.base import Group, Loss, Outputs
from clipkit.methods.parameters import param

if TYPE_CHECKING:
    import torch


@dataclass(kw_only=True)
class InfoLoob(Loss):
    """Leaves the pair itself out of what it is compared with, so that a good pair goes on being learnt from.

    With x, y the rows of a batch: tau * mean_i(-x_i . y_i / tau + log sum over j != i of exp(x_i . y_j / tau)), 1 / tau
    the logit scale, which is 30 throughout. hopfield: images and texts are retrieved from the batch's images and
    compared, and the same from its texts; else they are compared as they are, both ways. Of a batch, a process
    computes everything, not its share alone.
    """

    name: ClassVar[str] = "infoloob"
    scale: ClassVar[float | None] = 30.0
    trains_scale: ClassVar[bool] = False

    hopfield: bool = param(True, "compare what features retrieve from the batch, not features")
    beta: float = param(8.0, "the inverse temperature of that", low=0)

    def __call__(self, outputs: Outputs, group: Group) -> dict[str, torch.Tensor]:
        outputs = outputs.gathered(group)
        image, text, scale = outputs.image, outputs.caption, outputs.scale
        if len(image) < 2:
            raise ClipkitError(
                "infoloob compares a pair with the others of its batch, and there is none", "take a larger one"
            )
        if not self.hopfield:
            return {"loss": infoloob(image, text, scale) + infoloob(text, image, scale)}
        images = infoloob(retrieved(image, image, self.beta), retrieved(text, image, self.beta), scale)
        texts = infoloob(retrieved(text, text, self.beta), retrieved(image, text, self.beta), scale)
        return {"loss": images + texts}


def retrieved(state: torch.Tensor, stored: torch.Tensor, beta: float) -> torch.Tensor:
    """What each of `state` [n, d] retrieves from the patterns `stored` [m, d]: unit rows [n, d]."""
    from torch.nn import functional

    return functional.normalize((beta * state @ stored.T).softmax(-1) @ stored, dim=-1)


def infoloob(x: torch.Tensor, y: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """The loss of each row of x against all rows of y; scale: 1 / tau."""
    import torch

    logits = scale * x @ y.T
    own = torch.eye(len(logits), dtype=torch.bool, device=logits.device)
    others = logits.masked_fill(own, -torch.inf).logsumexp(1)
    return (others - logits.diagonal()).mean() / scale
