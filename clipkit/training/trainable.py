"""What of a model is trained: all of it, one tower beside a locked one (LiT), or low-rank updates (LoRA)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from clipkit.errors import UsageError
from clipkit.methods.adapters.lowrank import LowRanks, deltas
from clipkit.methods.adapters.towers import Weight, add_to, to_numpy, weights
from clipkit.methods.losses.base import Loss
from clipkit.training.settings import Settings

_SCALE = 1.0  # of low-rank updates: alpha = rank


class Trained:
    """The part of a model that learns. parameters: by name, in the model's order.

    lock_image (Zhai et al., "LiT: Zero-Shot Transfer with Locked-image text Tuning", 2022): the image tower, its
    projection included, has no gradients and is in eval mode, so that statistics of batch norms stay what they are
    (open_clip's own lock lets them drift unless asked). lock_text: likewise, without CoCa's decoder.
    lora_rank (Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", 2021): W + B A for the attention and
    MLP matrices of all layers of the towers that aren't locked, B zero at first, alpha = rank, no dropout; all else is
    as when locked, but for the logits' scale and bias.

    fresh: the weights are random: the loss' own scale and bias are what it starts with; a scale that the loss keeps
    fixed is set in any case. Raises UsageError where nothing is left to train, or the towers have no such matrices.
    """

    def __init__(self, model: Any, settings: Settings, loss: Loss, *, fresh: bool) -> None:
        self._model = model
        self._updates: LowRanks | None = None
        self._places: list[Weight] = []
        self._rank = settings.lora_rank or 0
        _begin(model, loss, fresh)
        locked = {"visual"} if settings.lock_image else set()
        locked |= {"text"} if settings.lock_text else set()
        if len(locked) == 2:
            raise UsageError(
                "both towers are locked: nothing is left to train", "leave out --lock-image or --lock-text"
            )
        if fresh and (locked or self._rank):
            raise UsageError(
                "random weights are neither locked nor updated: they have learned nothing yet",
                "name a model with weights, such as ViT-B-32:laion2b_s34b_b79k",
            )
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(not name.startswith("logit_") and not self._rank and _tower(name) not in locked)
        model.logit_scale.requires_grad_(loss.trains_scale)
        if getattr(model, "logit_bias", None) is not None:
            model.logit_bias.requires_grad_(loss.trains_scale)
        self.parameters: dict[str, nn.Parameter] = {
            name: value for name, value in model.named_parameters() if value.requires_grad
        }
        if self._rank:
            self._places = _layers(model, locked)
            self._updates = LowRanks(self._places, self._rank, _SCALE, 0.0, settings.seed)
            self.parameters |= self._updates.state()  # type: ignore[arg-type]
        self._modes()

    def _modes(self) -> None:
        """Training mode for what learns; a module all of whose weights are fixed is in eval mode, all below it too."""
        self._model.train()
        for module in self._model.modules():
            held = list(module.parameters())
            if held and not any(parameter.requires_grad for parameter in held):
                module.eval()

    def weights(self, values: Mapping[str, torch.Tensor] | None = None) -> dict[str, torch.Tensor]:
        """The whole model by open_clip's names, low-rank updates merged in; what is fixed is bit-equal to what it was.

        values: of the trained parameters, by name, instead of their own (an average of them).
        """
        values = self.parameters if values is None else values
        held = {name: values.get(name, value).detach() for name, value in self._model.state_dict().items()}
        if self._updates is None:
            return held
        updates = to_numpy({name: values[name] for name in self._updates.state()})
        for place in self._places:
            held[place.name] = held[place.name].clone()
        add_to(held, deltas(self._places, updates, self._rank, _SCALE))
        return held

    def state(self) -> dict[str, torch.Tensor]:
        """What training changes: the trained parameters and the model's buffers (statistics), without copies."""
        fixed = {name for name, _ in self._model.named_parameters()}
        buffers = {name: value for name, value in self._model.state_dict().items() if name not in fixed}
        return buffers | {name: value.detach() for name, value in self.parameters.items()}

    @torch.no_grad()
    def load(self, saved: Mapping[str, torch.Tensor]) -> None:
        """Take what `state` gave, in place. Raises ValueError for what is of another model."""
        mine = self.state()
        if wrong := mine.keys() ^ saved.keys():
            raise ValueError(f"{min(wrong)} is not in both, the model and what was saved")
        for name, value in mine.items():
            if value.shape != saved[name].shape:
                raise ValueError(f"{name} is {list(saved[name].shape)}, and the model's {list(value.shape)}")
            value.copy_(saved[name])


def _begin(model: Any, loss: Loss, fresh: bool) -> None:
    """The logits' scale and bias that training starts with."""
    bias = getattr(model, "logit_bias", None)
    with torch.no_grad():
        if loss.scale is not None and (fresh or not loss.trains_scale):
            model.logit_scale.fill_(loss.scale).log_()
        if loss.bias is not None and bias is not None and fresh:
            bias.fill_(loss.bias)


def _tower(name: str) -> str:
    return next((part for part in ("visual", "text_decoder") if name.startswith(f"{part}.")), "text")


def _layers(model: Any, locked: set[str]) -> list[Weight]:
    """The matrices of the layers of the towers that aren't locked."""
    towers = "both" if not locked else "text" if "visual" in locked else "vision"
    try:
        return weights(model, towers, {"qkv", "out", "mlp"})
    except UsageError as error:
        raise UsageError(
            error.message, "lock that tower (--lock-image, --lock-text), or train without --lora"
        ) from None
