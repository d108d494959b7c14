"""The image tower of an open_clip model, with the features behind its projection."""

from __future__ import annotations

from threading import local

import open_clip
import torch
from torch import nn


class ImageTower:
    """An open_clip image tower, giving the joint features [n, d] and those before the projection [n, backbone_dim].

    The latter are, for a ViT, the pooled tokens before `proj`; for OpenAI's ResNets, the mean over places of what
    enters the attention pool; for timm trunks, what enters the projection. A tower without one (SigLIP) has none.
    """

    def __init__(self, visual: nn.Module) -> None:
        self._visual = visual
        self._seen = local()
        self.proj: nn.Parameter | None = None
        self.backbone_dim: int | None = None
        if isinstance(getattr(visual, "proj", None), nn.Parameter):
            # With its `proj` taken away the tower returns what comes before it, and the product is done here.
            self.proj, visual.proj = visual.proj, None  # type: ignore[assignment]
            self.backbone_dim = int(self.proj.shape[0])  # type: ignore[union-attr]
        elif (entrance := _projection(visual)) is not None:
            module, self.backbone_dim = entrance
            module.register_forward_pre_hook(lambda _, args: setattr(self._seen, "value", args[0]))

    def restore(self, copied: nn.Module) -> None:
        """Make a deep copy of the tower one that open_clip knows: its projection is given back."""
        if self.proj is not None:
            copied.proj = nn.Parameter(self.proj.detach().clone())
        elif (entrance := _projection(copied)) is not None:
            entrance[0]._forward_pre_hooks.clear()

    def __call__(self, batch: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        out = self._visual(batch)
        pooled = out[0] if isinstance(out, tuple) else out  # CoCa's towers give their tokens too
        if self.proj is not None:
            return pooled @ self.proj, pooled
        if self.backbone_dim is None:
            return pooled, None
        behind = self._seen.value
        del self._seen.value
        return pooled, behind.mean(dim=(2, 3)) if behind.ndim == 4 else behind


def _projection(visual: nn.Module) -> tuple[nn.Module, int] | None:
    """The module that takes backbone features to the joint space, and their width; None if there is none."""
    if isinstance(visual, open_clip.modified_resnet.ModifiedResNet):
        return visual.attnpool, visual.attnpool.c_proj.in_features
    head, trunk = getattr(visual, "head", None), getattr(visual, "trunk", None)
    if trunk is None:
        return None
    if isinstance(head, nn.Sequential) and len(head):
        return head, int(trunk.num_features)
    classifier = trunk.get_classifier()
    return (classifier, classifier.in_features) if isinstance(classifier, nn.Linear) else None
