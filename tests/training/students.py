"""Small models that learn, and batches for them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import msgspec
import numpy as np
import open_clip
import torch

from clipkit.methods import LOSSES
from clipkit.models.base import Encoder
from clipkit.models.model_tokenizer import ModelTokenizer
from clipkit.models.open_clip import OpenClipEncoder, untrained
from clipkit.training.loader import Batch
from clipkit.training.settings import Settings
from clipkit.training.student import Student

WORDS: Final = 512  # CLIP's 49,408 would be nearly all of such a model
_VISION = {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8}
_TEXT = {"context_length": 12, "vocab_size": WORDS, "width": 32, "heads": 2, "layers": 2}
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "small": {"embed_dim": 16, "vision_cfg": _VISION, "text_cfg": _TEXT},
    "small-all-words": {"embed_dim": 16, "vision_cfg": _VISION, "text_cfg": {**_TEXT, "vocab_size": 49_408}},
    "small-custom": {"embed_dim": 16, "custom_text": True, "vision_cfg": _VISION, "text_cfg": _TEXT},
    "small-dropout": {"embed_dim": 16, "vision_cfg": {**_VISION, "patch_dropout": 0.5}, "text_cfg": _TEXT},
    "small-last": {
        "embed_dim": 16,
        "custom_text": True,
        "vision_cfg": _VISION,
        "text_cfg": {**_TEXT, "no_causal_mask": True, "pool_type": "last"},
    },
    "small-resnet": {
        "embed_dim": 16,
        "vision_cfg": {"image_size": 32, "layers": [1, 1, 1, 1], "width": 16},
        "text_cfg": _TEXT,
    },
    "small-coca": {
        "embed_dim": 32,
        "custom_text": True,
        "vision_cfg": {
            **_VISION,
            "attentional_pool": True,
            "attn_pooler_heads": 2,
            "attn_pooler_queries": 8,
            "output_tokens": True,
        },
        "text_cfg": {**_TEXT, "embed_cls": True, "output_tokens": True},
        "multimodal_cfg": {"context_length": 12, "vocab_size": WORDS, "width": 32, "heads": 2, "layers": 1},
    },
}
TEXTS = ["a cat", "a dog with a red hat", "red", "a blue car on a long road", "two", "a tree by the sea"]


class FewWords:
    """CLIP's tokenizer, many of its words being one; begin and end stay the two largest."""

    def __init__(self, tokenizer: ModelTokenizer) -> None:
        self._tokenizer = tokenizer
        self.context_length = tokenizer.context_length
        self.count = tokenizer.count

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        return few(self._tokenizer(texts))


def few(tokens: np.ndarray) -> np.ndarray:
    """Tokens of CLIP as those of a model with `WORDS`; those that are so already stay."""
    ends = tokens - (49_408 - WORDS)
    return np.where(tokens < WORDS, tokens, np.where(ends >= WORDS - 2, ends, tokens % (WORDS - 3) + 1))


@cache
def encoder(arch: str = "small", bias: float | None = None) -> OpenClipEncoder:
    """Untrained; of one seed. Its texts have few words, but for `small-all-words`."""
    if arch not in open_clip.list_models():
        with TemporaryDirectory() as folder:
            path = Path(folder, f"{arch}.json")
            path.write_bytes(msgspec.json.encode(ARCHITECTURES[arch]))
            open_clip.add_model_config(path)
    made = untrained(arch, seed=0, device="cpu", bias=bias)
    if arch != "small-all-words":
        made._tokenizer = FewWords(made._tokenizer)
    return made


def student(
    loss: str = "clip", arch: str = "", *, double: bool = True, teacher: Encoder | None = None, **settings: Any
) -> Student:
    """A model that learns by a loss; in f64 unless asked otherwise. arch: a small one that the loss can train."""
    made = LOSSES.get(loss).from_settings({})
    arch = arch or ("small-coca" if made.decodes else "small")
    teacher = teacher or (encoder("small-custom") if made.teaches else None)
    learns = Student(encoder(arch, made.bias), Settings(loss=loss, **settings), made, teacher)
    if double:
        learns.model.double()
    return learns


def batch(learns: Student, *, double: bool = True, seed: int = 0) -> Batch:
    """Six pairs, with as many captions as the loss looks at, of which some are not there."""
    loss = learns.loss
    count = getattr(loss, "captions", 1)

    def tokenize(texts: list[str]) -> torch.Tensor:  # by a model that was read again, too
        return torch.from_numpy(few(learns.encoder.tokenize(texts).numpy()))

    draw = torch.Generator().manual_seed(seed)
    pixels = torch.randn(len(TEXTS), 3, 32, 32, generator=draw, dtype=torch.float64 if double else torch.float32)
    tokens = torch.stack([tokenize([f"{text} {turn}" for turn in range(count)]) for text in TEXTS])
    present = torch.ones(tokens.shape[:2], dtype=torch.bool)
    present[2, 1:] = False
    wrong = tokenize([f"no {text}" for text in TEXTS])[:, None] if loss.negatives else None
    return Batch(
        names=[f"n{number}" for number in range(len(TEXTS))],
        texts=[f"{text} 0" for text in TEXTS],
        pixels=pixels,
        tokens=torch.where(present[:, :, None], tokens, 0),
        present=present,
        after=len(TEXTS),
        negatives=wrong,
        teacher_pixels=pixels.float() if loss.teaches else None,
        negatives_present=None if wrong is None else torch.tensor([[True], [True], [False], [True], [True], [True]]),
    )
