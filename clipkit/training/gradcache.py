"""Gradients of a large batch in the memory of a small one.

A contrastive loss compares all pairs of a batch, so batches cannot simply be added up. Gradient caching (Gao et al.,
2021; BASIC, Pham et al., 2021, trains with it): the features of all are computed in chunks, without what a backward
pass needs; the loss of all of them gives the gradient of each feature; then each chunk goes through the model again,
and its features' gradients through it. The gradients are those of the batch; the price is a second forward pass.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, replace
from typing import Any, Final

import torch
from torch import nn

from clipkit.errors import UsageError
from clipkit.methods.losses.base import DecodingLoss, Group, Loss, Outputs, of_all_tokens
from clipkit.training.loader import Batch
from clipkit.training.student import Student

_FEATURES: Final = ("image", "text", "negatives")
_PRESENCE: Final = ("present", "negatives_present")


def backward(
    student: Student, batch: Batch, loss: Loss, group: Group, chunk: int | None = None, factor: float = 1.0
) -> dict[str, torch.Tensor]:
    """Add the gradient of a loss to what is trained, and give `loss` and its parts, without gradients.

    chunk: pairs that go through the model at once, None for all: memory hangs on it, and the gradients don't. They are
    times `factor` (that of a GradScaler), and not yet averaged over the group. Raises UsageError where chunks would
    change them: batch normalisation.
    """
    if chunk is None or chunk >= len(batch.names):
        outputs = student.outputs(batch)
        with _as_they_are(student.device):
            said = loss(outputs, group)
            torch.autograd.backward(said["loss"] * factor)
    else:
        _check(student.model)
        said = _cached(student, list(_chunks(batch, chunk)), student.teaching(batch), loss, group, factor)
    return {name: part.detach() for name, part in said.items()}


def _cached(
    student: Student, chunks: list[Batch], teacher: Outputs | None, loss: Loss, group: Group, factor: float
) -> dict[str, torch.Tensor]:
    states, firsts = [], []
    with torch.no_grad():
        for chunk in chunks:
            states.append(_random_state(student.device))
            firsts.append(student.towers(chunk))
    torch.clear_autocast_cache()  # weights lowered under no_grad would get no gradient
    leaves = {name: _leaf([getattr(first, name) for first in firsts]) for name in _FEATURES if _has(firsts[0], name)}
    there = {name: _all([getattr(first, name) for first in firsts]) for name in _PRESENCE if _has(firsts[0], name)}
    whole = replace(firsts[0], **leaves, **there, scale=student.scale, teacher=teacher)
    decoding = loss if isinstance(loss, DecodingLoss) else None
    with _as_they_are(student.device):
        said = {"contrastive": decoding.contrast(whole, group)} if decoding else loss(whole, group)
        torch.autograd.backward(said["contrastive" if decoding else "loss"] * factor)
    captions = _again(student, chunks, states, leaves, decoding, group, factor)
    return {"loss": said["contrastive"] + captions, **said, "caption": captions} if decoding else said


def _again(
    student: Student,
    chunks: list[Batch],
    states: list[list[torch.Tensor]],
    leaves: dict[str, torch.Tensor],
    decoding: DecodingLoss | None,
    group: Group,
    factor: float,
) -> torch.Tensor:
    """The gradients of features, through the model, chunk by chunk; with what a decoder says, whose loss is given."""
    start, captions = 0, torch.zeros((), device=student.device)
    spoken = torch.cat([_spoken(chunk) for chunk in chunks]).to(student.device) if decoding else None
    for chunk, state in zip(chunks, states, strict=True):
        rows = slice(start, start := start + len(chunk.names))
        _replay(state, student.device)  # so that the same units are dropped out
        known = leaves["image"][rows].detach() if student.settings.lock_image and decoding is None else None
        outputs = student.towers(chunk, decode=decoding is not None, image=known)
        ends, gradients = [], []
        for name, leaf in leaves.items():
            if leaf.grad is not None and (feature := getattr(outputs, name)).requires_grad:
                ends.append(feature)
                gradients.append(leaf.grad[rows])
        if decoding is not None and spoken is not None:
            with _as_they_are(student.device):
                caption = of_all_tokens(decoding.caption(outputs), spoken[rows], spoken, group)
            captions = captions + caption.detach()
            ends.append(caption * factor)
            gradients.append(torch.ones_like(caption))
        if ends:
            torch.autograd.backward(ends, gradients)
    return captions


def _check(model: nn.Module) -> None:
    for name, module in model.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.training:
            raise UsageError(
                f"the model has batch normalisation ({name}): what it makes of a picture hangs on those beside it, and "
                "chunks would give other gradients than the batch",
                "leave --chunk out, or take a model without, a ViT for one",
            )


def _chunks(batch: Batch, size: int) -> Iterator[Batch]:
    """The batch in parts, in order."""
    held: dict[str, Any] = {field.name: getattr(batch, field.name) for field in fields(batch)}
    for start in range(0, len(batch.names), size):
        rows = slice(start, start + size)
        cut: dict[str, Any] = {
            name: value[rows] for name, value in held.items() if isinstance(value, list | torch.Tensor)
        }
        yield replace(batch, **cut)


def _spoken(batch: Batch) -> torch.Tensor:
    """What a decoder should say of each picture, int64 [b, length]: the caption from its second token on."""
    return batch.tokens[:, 0, 1:]


def _has(outputs: Outputs, name: str) -> bool:
    return getattr(outputs, name) is not None


def _all(parts: list[torch.Tensor]) -> torch.Tensor:
    return torch.cat(parts)


def _leaf(parts: list[torch.Tensor]) -> torch.Tensor:
    return torch.cat(parts).requires_grad_()


def _as_they_are(device: str) -> torch.autocast:
    """A loss computes in what it is given, f32."""
    return torch.autocast(device.partition(":")[0], enabled=False)


def _random_state(device: str) -> list[torch.Tensor]:
    """Of torch's generators, the CPU's and the device's."""
    states = [torch.get_rng_state()]
    return [*states, torch.cuda.get_rng_state(device)] if device.startswith("cuda") else states


def _replay(states: list[torch.Tensor], device: str) -> None:
    torch.set_rng_state(states[0])
    if device.startswith("cuda"):
        torch.cuda.set_rng_state(states[1], device)
