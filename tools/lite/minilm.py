"""all-MiniLM-L6-v2 (Reimers and Gurevych, 2019; Wang et al., 2020) in float64: what the head is built from.

In double precision every machine rounds to the same bytes of the head, whatever its kernels.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping

import numpy as np
import torch
from tokenizers import Tokenizer
from torch.nn import functional as F

LAYERS, HEADS, WIDTH, EPSILON = 6, 12, 384, 1e-12


class MiniLM:
    """E(s): the mean over all token vectors, [CLS] and [SEP] included, normalised."""

    def __init__(self, weights: Mapping[str, np.ndarray], tokenizer: Tokenizer) -> None:
        self._weights = {name: torch.from_numpy(value.astype(np.float64)) for name, value in weights.items()}
        self._tokenizer = tokenizer
        self._known: dict[str, np.ndarray] = {}

    def __call__(self, texts: Iterable[str]) -> np.ndarray:
        """Texts to unit rows f64 [n, 384]; each text is encoded once."""
        texts = list(texts)
        by_length: dict[int, dict[str, list[int]]] = defaultdict(dict)
        for text in dict.fromkeys(texts):
            if text not in self._known:
                ids = self._tokenizer.encode(text).ids
                by_length[len(ids)][text] = ids
        for same_length in by_length.values():
            self._known.update(zip(same_length, self._encode(torch.tensor(list(same_length.values()))), strict=True))
        return np.stack([self._known[text] for text in texts])

    @torch.inference_mode()
    def _encode(self, ids: torch.Tensor) -> np.ndarray:
        weights = self._weights
        x = weights["embeddings.word_embeddings.weight"][ids]
        x = x + weights["embeddings.position_embeddings.weight"][: ids.shape[1]]
        x = x + weights["embeddings.token_type_embeddings.weight"][0]
        x = self._norm(x, "embeddings.LayerNorm")
        for layer in range(LAYERS):
            name = f"encoder.layer.{layer}."
            parts = ("query", "key", "value")
            query, key, value = (self._heads(self._dense(x, f"{name}attention.self.{part}")) for part in parts)
            attention = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).reshape(x.shape)
            attended = self._dense(attention, f"{name}attention.output.dense")
            x = self._norm(x + attended, f"{name}attention.output.LayerNorm")
            inner = F.gelu(self._dense(x, f"{name}intermediate.dense"))
            x = self._norm(x + self._dense(inner, f"{name}output.dense"), f"{name}output.LayerNorm")
        encoded: np.ndarray = F.normalize(x.mean(1), dim=-1).numpy()
        return encoded

    def _dense(self, x: torch.Tensor, name: str) -> torch.Tensor:
        return F.linear(x, self._weights[f"{name}.weight"], self._weights[f"{name}.bias"])

    def _norm(self, x: torch.Tensor, name: str) -> torch.Tensor:
        return F.layer_norm(x, (WIDTH,), self._weights[f"{name}.weight"], self._weights[f"{name}.bias"], EPSILON)

    @staticmethod
    def _heads(x: torch.Tensor) -> torch.Tensor:
        return x.view(*x.shape[:2], HEADS, WIDTH // HEADS).transpose(1, 2)
