"""The processes that train together, as torchrun starts them.

Gradients are averaged after the backward pass, in a few large pieces, and not during it as in DDP: so a batch that
goes through the model in chunks is averaged once, and towers that are locked, or unused in a step, need no care.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, Final

import msgspec
import torch
from torch import distributed, nn

_PIECE: Final = 1 << 24  # numbers that are averaged at once: 64 MiB


class Alone:
    """One process."""

    rank: int = 0
    world: int = 1

    @property
    def leader(self) -> bool:
        """Whether this process writes files and speaks."""
        return self.rank == 0

    def gather(self, rows: torch.Tensor) -> torch.Tensor:
        """The rows of all processes, [world * b, ...], by rank. Gradients flow back to where each row came from, summed
        over the processes."""
        return rows

    def average(self, parameters: Sequence[nn.Parameter]) -> None:
        """Make each gradient the mean over the processes, in place, one that a process lacks counting as 0. What has a
        gradient nowhere is left without one. The same parameters in the same order in all processes."""

    def mean(self, values: torch.Tensor) -> torch.Tensor:
        """The mean over the processes."""
        return values

    def names(self, names: Sequence[str]) -> list[str]:
        """Those of all processes, by rank."""
        return list(names)

    def broadcast(self, tensors: Sequence[torch.Tensor]) -> None:
        """Make them those of rank 0, in place."""

    def barrier(self) -> None:
        """Wait until all are here."""


class Together(Alone):
    """Several processes. Everything here is to be called by all of them."""

    def __init__(self) -> None:
        self.rank, self.world = distributed.get_rank(), distributed.get_world_size()

    def gather(self, rows: torch.Tensor) -> torch.Tensor:
        if rows.dtype == torch.bool:
            return self._all(rows.to(torch.uint8)).bool()
        gathered: torch.Tensor = _Gather.apply(rows, self) if rows.requires_grad else self._all(rows)
        return gathered

    def average(self, parameters: Sequence[nn.Parameter]) -> None:
        there = torch.tensor([parameter.grad is not None for parameter in parameters], dtype=torch.float32)
        there = self.mean(there.to(parameters[0].device))
        used = [parameter for parameter, part in zip(parameters, there.tolist(), strict=True) if part]
        for piece in _pieces(used):
            gradients = [torch.zeros_like(one) if one.grad is None else one.grad for one in piece]
            flat = self.mean(torch.cat([gradient.reshape(-1) for gradient in gradients]))
            for parameter, gradient, part in zip(
                piece, gradients, torch.split(flat, [one.numel() for one in piece]), strict=True
            ):
                parameter.grad = gradient.copy_(part.view_as(gradient))

    def mean(self, values: torch.Tensor) -> torch.Tensor:
        values = values.detach().clone()
        distributed.all_reduce(values)
        return values / self.world

    def names(self, names: Sequence[str]) -> list[str]:
        data = msgspec.json.encode(list(names))
        lengths = self._all(torch.tensor([len(data)], device=_device())).tolist()
        padded = torch.zeros(1, max(lengths), dtype=torch.uint8)
        padded[0, : len(data)] = torch.frombuffer(bytearray(data), dtype=torch.uint8)
        rows = self._all(padded.to(_device())).cpu().numpy()
        everyone = (bytes(row[:length]) for row, length in zip(rows, lengths, strict=True))
        return [name for shared in everyone for name in msgspec.json.decode(shared, type=list[str])]

    def broadcast(self, tensors: Sequence[torch.Tensor]) -> None:
        for tensor in tensors:
            distributed.broadcast(tensor.detach(), 0)

    def barrier(self) -> None:
        self.mean(torch.zeros(1, device=_device()))

    def _all(self, rows: torch.Tensor) -> torch.Tensor:
        rows = rows.detach().contiguous()
        everyone = rows.new_empty(self.world * len(rows), *rows.shape[1:])
        distributed.all_gather(list(everyone.chunk(self.world)), rows)
        return everyone


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: torch.Tensor, group: Together) -> torch.Tensor:
        ctx.group = group
        return group._all(rows)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        gradient = gradient.contiguous().clone()
        distributed.all_reduce(gradient)
        return gradient.chunk(ctx.group.world)[ctx.group.rank], None


def launched() -> bool:
    """Whether torchrun started this process beside others."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def local_rank() -> int:
    """This process's number on its machine: that of its GPU."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def local_world() -> int:
    """How many processes of the run are on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


@contextmanager
def processes(device: str) -> Iterator[Alone]:
    """The group of this process, alone where torchrun didn't start it: over NCCL on GPUs, gloo elsewhere."""
    if not launched():
        yield Alone()
        return
    cuda = device.startswith("cuda")
    if cuda:
        torch.cuda.set_device(device)
    # open_clip's losses gather with it.
    warnings.filterwarnings("ignore", "torch.distributed.nn.functional.all_gather is deprecated", FutureWarning)
    distributed.init_process_group("nccl" if cuda else "gloo", timeout=timedelta(minutes=30))
    try:
        yield Together()
    finally:
        distributed.destroy_process_group()


def _pieces(parameters: Sequence[nn.Parameter]) -> Iterator[list[nn.Parameter]]:
    piece: list[nn.Parameter] = []
    for parameter in parameters:
        if piece and sum(map(torch.Tensor.numel, piece)) + parameter.numel() > _PIECE:
            yield piece
            piece = []
        piece.append(parameter)
    if piece:
        yield piece


def _device() -> str:
    return "cuda" if distributed.get_backend() == "nccl" else "cpu"
