"""Tiny random open_clip models with a task that they can learn: pictures of a few colours, and labels for them."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from clipkit.methods.adapters import finetune
from clipkit.methods.adapters.data import Samples, Task
from clipkit.models.load import load
from clipkit.models.open_clip import OpenClipEncoder
from clipkit.stream.hashing import share
from clipkit.text.classifier import classifier
from clipkit.text.labels import Labels
from tests.models import tiny

CLASSES = ("red", "green", "blue")
PROMPTS = (("a red thing",), ("a green thing", "grass"), ("a blue thing, of many",))
STYLES = ("tiny-vit", "tiny-coca", "tiny-sigmoid")


@dataclass(frozen=True)
class Colours:
    """Pictures in the colours of their labels, with noise; every view has other noise."""

    labels: np.ndarray
    size: tuple[int, int]

    def __len__(self) -> int:
        return len(self.labels)

    def pixels(self, row: int, view: int = 0) -> np.ndarray:
        drawn = np.random.default_rng([row, view]).standard_normal((3, *self.size)) * 0.5
        drawn[self.labels[row]] += 2
        return drawn.astype(np.float32)


@cache
def encoder(arch: str) -> OpenClipEncoder:
    with tempfile.TemporaryDirectory() as name:
        tiny.register(Path(name))
        model = tiny.make(arch)
        with torch.no_grad():  # as in a trained model, weights are no ones and zeros
            for value in model.parameters():
                value.nan_to_num_().add_(0.02 * torch.randn_like(value))
        (folder := Path(name) / "models").mkdir()
        loaded = load(f"{arch}:{tiny.save(model, folder / 'model.safetensors')}")
    assert isinstance(loaded, OpenClipEncoder)
    return loaded


def samples(arch: str, shots: int = 4, *, seed: int = 0, prefix: str = "") -> Samples:
    """Some pictures a class."""
    model = encoder(arch)
    text = classifier(model, Labels(CLASSES, dict(zip(CLASSES, PROMPTS, strict=True))), ())
    task = Task(CLASSES, text, model.logit_scale, model.logit_bias, "joint", PROMPTS, model, seed)
    labels = np.repeat(np.arange(len(CLASSES)), shots)
    names = [f"{prefix}{row}.jpg" for row in range(len(labels))]
    return Samples(task, labels, pictures=Colours(labels, model.identity.preprocess.size), names=names)


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiny models take longer with more, much longer on a busy machine."""
    monkeypatch.setattr(finetune, "available_cores", lambda: 1)


def shuffled(given: Samples) -> Samples:
    """The same samples in another order."""
    return given.take(np.array(sorted(range(len(given)), key=lambda row: share(str(row), 1, "test")), np.int64))


def stacked(given: Samples, view: int = 0) -> np.ndarray:
    assert given.pictures is not None
    return np.stack([given.pictures.pixels(row, view) for row in range(len(given))])


def features(model: Any, pixels: np.ndarray, texts: list[str], encoder: OpenClipEncoder) -> tuple[Any, Any]:
    """Unit features of an open_clip module, images and texts, as tensors."""
    images = model.encode_image(torch.from_numpy(pixels), normalize=True)
    return images, model.encode_text(encoder.tokenize(texts), normalize=True)
