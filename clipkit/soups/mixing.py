"""Sums of models' weights, in the memory of one model more than what is made, however many there are.

The files are gone through in pieces, of which one of one file is in memory at a time.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final

import torch

from clipkit.errors import ClipkitError
from clipkit.soups.states import check

if TYPE_CHECKING:
    from clipkit.models.checkpoint import Shapes
    from clipkit.models.weights_file import OpenWeights
    from clipkit.soups.states import State

PIECE: Final = 1 << 24  # numbers, of which sums are kept in f64: 128 MiB
_BLOCK: Final = 1 << 20  # numbers of a tensor that are widened at a time
Terms = Sequence[tuple[float, "State"]]


def mix(terms: Terms) -> Iterator[tuple[str, torch.Tensor]]:
    """The weighted sum of models: name and tensor, in order of the names, on the CPU, to be kept or dropped.

    Sums are taken in f64, in the order of the terms, and rounded once, to f32. All floats are mixed, logit_scale,
    logit_bias and the running statistics of batch norms among them; integers (how many batches a batch norm has seen,
    position ids) decide nothing in a model that is run, and are the first term's.

    Raises ClipkitError where the models cannot be mixed, a tensor of one isn't finite, or one of the sum cannot be: not
    finite in f32, or a variance below 0.
    """
    check([state for _, state in terms])
    for names in _pieces(terms[0][1].shapes):
        sums: dict[str, torch.Tensor] = {}
        for coefficient, state in terms:
            with state.open() as tensors:
                for name in names:
                    _add(sums, coefficient, name, tensors, state)
        for name in names:
            yield name, _rounded(name, sums.pop(name))


def _pieces(shapes: Shapes) -> Iterator[list[str]]:
    names: list[str] = []
    size = 0
    for name in sorted(shapes):
        more = math.prod(shapes[name])
        if names and size + more > PIECE:
            yield names
            names, size = [], 0
        names.append(name)
        size += more
    if names:
        yield names


def _add(sums: dict[str, torch.Tensor], coefficient: float, name: str, tensors: OpenWeights, state: State) -> None:
    tensor = tensors[name]
    if not tensor.is_floating_point():
        sums.setdefault(name, tensor.clone())
        return
    first = name not in sums
    if first:
        sums[name] = torch.empty(tensor.shape, dtype=torch.float64)
    flat, total = tensor.reshape(-1), sums[name].view(-1)
    for start in range(0, len(flat), _BLOCK):
        into, part = (whole[start : start + _BLOCK] for whole in (total, flat))
        if not torch.isfinite(part).all():
            raise ClipkitError(f"{state.model} holds numbers that are not finite, in {name}", "its training went wrong")
        wide = part.double().mul_(coefficient)
        into.copy_(wide) if first else into.add_(wide)  # -0 stays -0: nothing is added to 0


def _rounded(name: str, total: torch.Tensor) -> torch.Tensor:
    if not total.is_floating_point():
        return total
    mixed = total.float()
    if not torch.isfinite(mixed).all():
        raise ClipkitError(f"{name} of the mixture is not finite", "the coefficients are too large")
    if name.endswith("running_var") and (mixed < 0).any():
        raise ClipkitError(f"{name} of the mixture has variances below 0", "take smaller coefficients")
    return mixed
