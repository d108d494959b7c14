"""Texts through a model's text tower, no longer than the longest of them needs."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.func import functional_call


def encode_texts(model: Any, tokens: torch.Tensor, device: str) -> torch.Tensor:
    """Features [n, d], not normalised, of tokens int64 [n, length] on the CPU, with gradients.

    Of CLIP's 77 places a usual caption takes 15: what is behind the longest of a batch is not computed, where nothing
    behind a text's end can reach its features. They and all gradients are the same.
    """
    needed = _needed(model, tokens)
    shown = tokens[:, :needed].to(device)
    if needed == tokens.shape[1]:
        whole: torch.Tensor = model.encode_text(shown, normalize=False)
        return whole
    tower = getattr(model, "text", model)
    prefix = "model." if tower is model else "model.text."
    shorter = {
        f"{prefix}positional_embedding": tower.positional_embedding[:needed],
        f"{prefix}attn_mask": tower.attn_mask[:needed, :needed],
    }
    features: torch.Tensor = functional_call(_Texts(model), shorter, (shown,), tie_weights=False)
    return features


def _needed(model: Any, tokens: torch.Tensor) -> int:
    """The places that decide the features: up to the last that one of them is taken from, in a causal tower."""
    tower = getattr(model, "text", model)
    pooled = getattr(tower, "text_pool_type", None) or getattr(tower, "pool_type", None)
    if not len(tokens) or getattr(tower, "attn_mask", None) is None or getattr(tower, "cls_emb", None) is not None:
        return tokens.shape[1]
    if pooled == "argmax":
        ends = tokens.argmax(-1)
    elif pooled == "eos":
        ends = (tokens == (tower.text_eos_id if tower is model else tower.eos_id)).int().argmax(-1)
    else:
        return tokens.shape[1]
    return int(ends.max()) + 1


class _Texts(nn.Module):
    """`encode_text` as a module's forward: what parameters can be exchanged for."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        features: torch.Tensor = self.model.encode_text(tokens, normalize=False)
        return features
