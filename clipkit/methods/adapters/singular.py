"""Changes of singular values inside a running model. Importing this imports torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import nn

from clipkit.methods.adapters.towers import Weight, check
from clipkit.stream.engine import available_cores


class SingularValues:
    """The changes d of the singular values of some weights of a model, which runs with W + U diag(d) V^T."""

    def __init__(self, places: Sequence[Weight]) -> None:
        self._places = places
        self._whole = [place.value.clone() for place in places]
        self._factors = factors(places)
        self._changes = {
            address: nn.Parameter(left.new_zeros(left.shape[1])) for address, (left, _) in self._factors.items()
        }
        for place in places:
            delattr(place.module, place.attribute)  # a plain tensor takes the parameter's place
        self.refresh()

    def parameters(self) -> list[nn.Parameter]:
        return list(self._changes.values())

    def refresh(self) -> None:
        """Give the model its weights as they are now."""
        for place, whole in zip(self._places, self._whole, strict=True):
            parts = [self._change(address) for address in place.addresses]
            setattr(place.module, place.attribute, whole + (torch.cat(parts) if place.fused else parts[0]))

    def state(self) -> dict[str, torch.Tensor]:
        return {f"{address}.d": change for address, change in self._changes.items()}

    def _change(self, address: str) -> torch.Tensor:
        left, right = self._factors[address]
        return left * self._changes[address] @ right


def factors(places: Sequence[Weight]) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Of each weight, by address: U [out, k] and V^T [k, in], by descending singular value.

    In f64 on the CPU, each matrix on one core: rounding turns the vectors of near values into each other, and what was
    learned for them on one machine must hold on another, with more cores. About 40 s of one core for a ViT-B-32.
    """
    parts = [part for place in places for part in place.parts()]
    before = torch.get_num_threads()
    try:  # a new thread would take all cores for each matrix, and they would wait for each other
        with ThreadPoolExecutor(available_cores(), initializer=torch.set_num_threads, initargs=(1,)) as pool:
            found = list(pool.map(_factors, (rows for _, rows in parts)))
    finally:
        torch.set_num_threads(before)
    return dict(zip((address for address, _ in parts), found, strict=True))


def deltas(places: Sequence[Weight], state: Mapping[str, np.ndarray]) -> Iterator[tuple[str, torch.Tensor]]:
    """U diag(d) V^T by address. state: as `SingularValues.state` has it. Raises ValueError where it doesn't fit."""
    check(state, {f"{address}.d": (min(rows.shape),) for place in places for address, rows in place.parts()})
    for address, (left, right) in factors(places).items():
        yield address, left * torch.from_numpy(state[f"{address}.d"]).to(left) @ right


def _factors(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    left, _, right = torch.linalg.svd(rows.cpu().double(), full_matrices=False)
    return left.to(rows), right.to(rows)
