"""The model that learns: an open_clip model's two towers, and what of it is trained."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from clipkit.methods.losses.base import Loss, Outputs
from clipkit.models.open_clip import OpenClipEncoder
from clipkit.training.loader import Batch
from clipkit.training.settings import Settings


class Student:
    """encoder: where it came from (tokenizer, preprocessing, configuration). model: what is trained."""

    def __init__(self, encoder: OpenClipEncoder, settings: Settings, loss: Loss) -> None:
        self.encoder, self.device = encoder, encoder.device
        self.model: Any = encoder.module().train()
        self.settings, self.loss = settings, loss

    def parameters(self) -> dict[str, nn.Parameter]:
        """What is trained, by name."""
        return {name: value for name, value in self.model.named_parameters() if value.requires_grad}

    def outputs(self, batch: Batch) -> Outputs:
        """What the towers give for a batch, with gradients."""
        image = self.model.encode_image(batch.pixels.to(self.device), normalize=True)
        count, many, length = batch.tokens.shape
        text = self.model.encode_text(batch.tokens.view(-1, length).to(self.device), normalize=True)
        bias = getattr(self.model, "logit_bias", None)
        present = batch.present.to(self.device)
        return Outputs(image, text.view(count, many, -1), present, self.model.logit_scale.exp(), bias)

    def state(self) -> dict[str, torch.Tensor]:
        """The weights as open_clip names them, to be saved or measured."""
        return dict(self.model.state_dict())
