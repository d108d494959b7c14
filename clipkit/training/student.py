"""The model that learns: an open_clip model's two towers, and what of it is trained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from clipkit.errors import UsageError
from clipkit.methods.losses.base import Loss, Outputs
from clipkit.models.base import Encoder
from clipkit.models.open_clip import OpenClipEncoder
from clipkit.training.loader import Batch
from clipkit.training.precision import lowered
from clipkit.training.settings import Settings
from clipkit.training.text_tower import encode_texts
from clipkit.training.trainable import Trained


class Student:
    """encoder: where it came from (tokenizer, preprocessing, configuration). model: what is trained.

    teacher: the model that a loss which `teaches` has it learn from. Raises UsageError for a loss that the model cannot
    be trained with.
    """

    def __init__(
        self, encoder: OpenClipEncoder, settings: Settings, loss: Loss, teacher: Encoder | None = None
    ) -> None:
        self.encoder, self.device = encoder, encoder.device
        self.model: Any = encoder.module()
        self.settings, self.loss, self.teacher = settings, loss, teacher
        self._check(encoder.identity.name)
        self.trained = Trained(self.model, settings, loss, fresh=encoder.fresh)

    def parameters(self) -> dict[str, nn.Parameter]:
        """What is trained, by name."""
        return self.trained.parameters

    def outputs(self, batch: Batch) -> Outputs:
        """What the towers give for a batch, with gradients, and the teacher, without."""
        return replace(self.towers(batch, decode=self.loss.decodes), teacher=self.teaching(batch))

    @property
    def scale(self) -> torch.Tensor:
        """The logit scale, with its gradient."""
        exponentiated: torch.Tensor = self.model.logit_scale.exp()
        return exponentiated

    def towers(self, batch: Batch, *, decode: bool = False, image: torch.Tensor | None = None) -> Outputs:
        """What the student alone gives. decode: what its decoder says of the captions too. image: features of the image
        tower, where they are known. Features are f32, whatever the towers compute in; decoded logits are not.
        """
        model = self.model
        pixels = batch.pixels if image is not None else self._moved(batch.pixels)
        logits = said = negatives = None
        with lowered(self.device, self.settings.precision):
            if decode:
                tokens = self._moved(batch.tokens[:, 0])
                image, parts = model.visual(pixels)
                text, words = model.text(tokens)
                length = int((batch.tokens[:, 0] != model.pad_id).any(0).nonzero().max()) + 1
                logits, said = model.text_decoder(parts, words[:, : length - 1]), tokens[:, 1:length]
                text = text[:, None]
            else:
                image = model.encode_image(pixels, normalize=False) if image is None else image
                text, negatives = self._texts(batch)
        return Outputs(
            image=_unit(image),
            text=_unit(text),
            present=self._moved(batch.present),
            scale=self.scale,
            bias=getattr(model, "logit_bias", None),
            negatives=None if negatives is None else _unit(negatives),
            negatives_present=None if batch.negatives_present is None else self._moved(batch.negatives_present),
            logits=logits,
            tokens=said,
        )

    def teaching(self, batch: Batch) -> Outputs | None:
        """What the teacher says of a batch; None without one."""
        if self.teacher is None:
            return None
        pixels = batch.pixels if batch.teacher_pixels is None else batch.teacher_pixels
        image, _ = self.teacher.encode_images(pixels.numpy())
        text = self.teacher.encode_texts(batch.texts)
        bias = self.teacher.logit_bias
        return Outputs(
            image=self._known(image),
            text=self._known(text)[:, None],
            present=torch.ones(len(image), 1, dtype=torch.bool, device=self.device),
            scale=torch.tensor(self.teacher.logit_scale, device=self.device),
            bias=None if bias is None else torch.tensor(bias, device=self.device),
        )

    def state(self, values: Mapping[str, torch.Tensor] | None = None) -> dict[str, torch.Tensor]:
        """The weights as open_clip names them, to be saved or measured. values: instead of those of what is trained."""
        return self.trained.weights(values)

    def _texts(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Features of captions [b, m, d] and of negatives [b, k, d]: those that are there go through the tower, all at
        once, and the rest is 0."""
        held = [(batch.tokens, batch.present)]
        if batch.negatives is not None and batch.negatives_present is not None:
            held.append((batch.negatives, batch.negatives_present))
        rows = torch.cat([tokens[present] for tokens, present in held])
        features = encode_texts(self.model, rows, self.device)
        spread = []
        counts = [int(present.sum()) for _, present in held]
        for (_, present), found in zip(held, torch.split(features, counts), strict=True):
            places = present.flatten().nonzero()[:, 0].to(self.device)
            empty = found.new_zeros(present.numel(), found.shape[1])
            spread.append(empty.index_copy(0, places, found).view(*present.shape, -1))
        return spread[0], spread[1] if len(spread) > 1 else None

    def _moved(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor.to(self.device, non_blocking=True)

    def _known(self, features: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(features).to(self.device)

    def _check(self, name: str) -> None:
        loss, model = self.loss, self.model
        if loss.decodes and not hasattr(model, "text_decoder"):
            raise UsageError(
                f"{loss.name} trains what a model says of a picture, and {name} has no decoder",
                "take a CoCa model: clipkit models coca",
            )
        if loss.needs_bias and getattr(model, "logit_bias", None) is None:
            raise UsageError(
                f"{loss.name} needs a logit bias, which {name} was trained without",
                "take a SigLIP model, or an architecture to train from scratch: one is made with it",
            )
        if loss.teaches and self.teacher is None:
            raise UsageError(f"{loss.name} needs a model to learn from", "name it: --teacher MODEL")
        if self.teacher is not None and not loss.teaches:
            raise UsageError(f"{loss.name} has no use for a teacher", "take --loss distill, or leave --teacher out")


def _unit(features: torch.Tensor) -> torch.Tensor:
    """Unit rows; f32 at least; rows of zeros stay."""
    if features.dtype in (torch.float16, torch.bfloat16):
        features = features.float()
    return functional.normalize(features, dim=-1)
