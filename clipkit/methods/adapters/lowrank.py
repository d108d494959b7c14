"""Low-rank updates inside a running model. Importing this imports torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from clipkit.methods.adapters.towers import Weight, check
from clipkit.stream.hashing import ticket


class LowRank(nn.Module):
    """scale * B A dropout(x). x: [..., in], the result [..., out]. Begins as 0."""

    def __init__(self, rows: torch.Tensor, r: int, scale: float, dropout: float, generator: torch.Generator) -> None:
        super().__init__()
        bound = rows.shape[1] ** -0.5  # kaiming_uniform with a = sqrt(5), as in torch's Linear
        down = (2 * torch.rand(r, rows.shape[1], generator=generator) - 1) * bound
        self.A = nn.Parameter(down.to(rows))
        self.B = nn.Parameter(rows.new_zeros(rows.shape[0], r))
        self.scale, self.dropout = scale, dropout

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = functional.dropout(x, self.dropout, self.training)
        return self.scale * functional.linear(functional.linear(x, self.A), self.B)


class LowRanks:
    """The updates of some weights of a model, which uses them from here on. Dropout is on until `eval`."""

    def __init__(self, places: Sequence[Weight], r: int, scale: float, dropout: float, seed: int) -> None:
        self._held: dict[str, LowRank] = {}
        for place in places:
            updates = []
            for address, rows in place.parts():
                generator = torch.Generator().manual_seed(int.from_bytes(ticket(address, seed, "lora")[:7], "big"))
                updates.append(LowRank(rows, r, scale, dropout, generator))
                self._held[address] = updates[-1]
            if isinstance(place.module, nn.MultiheadAttention):
                place.module.forward = _attention(place.module, updates)  # type: ignore[method-assign]
            else:
                place.module.register_forward_hook(_added(updates))

    def parameters(self) -> list[nn.Parameter]:
        return [value for update in self._held.values() for value in (update.A, update.B)]

    def refresh(self) -> None:
        """The model's own weights stay as they are."""

    def state(self) -> dict[str, torch.Tensor]:
        return {
            f"{address}.{which}": getattr(update, which) for address, update in self._held.items() for which in "AB"
        }

    def eval(self) -> None:
        """Without dropout from here on."""
        for update in self._held.values():
            update.eval()


def deltas(
    places: Sequence[Weight], state: Mapping[str, np.ndarray], r: int, scale: float
) -> Iterator[tuple[str, torch.Tensor]]:
    """scale * B A by address, in f64. state: as `LowRanks.state` has it. Raises ValueError where it doesn't fit."""
    addresses = {address: tuple(rows.shape) for place in places for address, rows in place.parts()}
    shapes = {f"{address}.A": (r, wide) for address, (_, wide) in addresses.items()}
    check(state, shapes | {f"{address}.B": (high, r) for address, (high, _) in addresses.items()})
    for address in addresses:
        up, down = (torch.from_numpy(state[f"{address}.{which}"]).double() for which in "BA")
        yield address, scale * up @ down


def _added(updates: Sequence[LowRank]) -> Callable[..., torch.Tensor]:
    """A forward hook for a Linear: the updates of its row blocks are added to what it gives."""

    def hook(_: nn.Module, args: tuple[torch.Tensor, ...], out: torch.Tensor) -> torch.Tensor:
        return out + torch.cat([update(args[0]) for update in updates], dim=-1)

    return hook


def _attention(attention: nn.MultiheadAttention, updates: Sequence[LowRank]) -> Callable[..., Any]:
    """A forward for self-attention whose q, k and v have updates; otherwise as `nn.MultiheadAttention` computes it."""

    def forward(
        query: torch.Tensor,
        key: torch.Tensor | None = None,
        value: torch.Tensor | None = None,
        *,
        need_weights: bool = False,
        attn_mask: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, None]:
        x = query if attention.batch_first else query.transpose(0, 1)
        count, length, width = x.shape
        heads = attention.num_heads
        projected = functional.linear(x, attention.in_proj_weight, attention.in_proj_bias).chunk(3, dim=-1)
        q, k, v = (
            (part + update(x)).view(count, length, heads, width // heads).transpose(1, 2)
            for part, update in zip(projected, updates, strict=True)
        )
        if attn_mask is not None and attn_mask.ndim == 3:  # CoCa's: one for each text and head
            attn_mask = attn_mask.view(count, heads, length, length)
        out = functional.scaled_dot_product_attention(q, k, v, attn_mask=attn_mask)
        out = attention.out_proj(out.transpose(1, 2).flatten(2))
        return (out if attention.batch_first else out.transpose(0, 1)), None

    return forward
