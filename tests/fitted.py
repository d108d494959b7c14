"""Adapters fitted on a few pictures with the model that the package carries, for the tests of who uses adapters."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from clipkit.images.decode import decode
from clipkit.methods import ADAPTERS
from clipkit.methods.adapters import files
from clipkit.methods.adapters.base import Adapter
from clipkit.methods.adapters.data import Features, Samples, Task, unit
from clipkit.models.base import Encoder
from clipkit.models.load import load
from clipkit.text.classifier import classifier
from clipkit.text.labels import Labels

CLASSES = ("stripes", "noise", "plain")
SHOTS = 4
FROM_FEATURES = [entry.name for entry in ADAPTERS if entry.name not in ("coop", "lora", "svd")]
NOT_LINEAR = ("tip", "tip-f", "clip-adapter")
FEW = {"tip-f": {"epochs": 2}, "clip-adapter": {"epochs": 20}}  # what is trained need not be trained well here


def pictures(folder: Path) -> list[Path]:
    """SHOTS pictures of each class, CLASS-N.png."""
    folder.mkdir(exist_ok=True)
    made = []
    for number in range(SHOTS):
        draw = np.random.default_rng(number)
        noise = draw.integers(0, 256, (48, 64, 3), dtype=np.uint8)
        stripes = np.tile(noise[:1], (48, 1, 1))
        plain = np.full_like(noise, noise[0, 0])
        for name, pixels in zip(CLASSES, (stripes, noise, plain), strict=True):
            made.append(folder / f"{name}-{number}.png")
            Image.fromarray(pixels).save(made[-1])
    return sorted(made)


@cache
def lite() -> Encoder:
    return load("lite")


def features(paths: list[Path]) -> Features:
    """Of pictures, joint and backbone."""
    return _features(tuple(path.read_bytes() for path in paths))


@cache
def _features(pictures: tuple[bytes, ...]) -> Features:
    joint, behind = lite().encode_images([lite().preprocess(decode(data)) for data in pictures], backbone=True)
    assert behind is not None
    return Features(joint, unit(behind))


@cache
def task(space: Literal["joint", "backbone"] = "backbone") -> Task:
    text = classifier(lite(), Labels(CLASSES), lite().default_templates)
    prompts = tuple((lite().default_templates[0].replace("{}", name),) for name in CLASSES)
    return Task(CLASSES, text, lite().logit_scale, lite().logit_bias, space, prompts)


def fitted(method: str, paths: list[Path], space: Literal["joint", "backbone"] = "backbone") -> Adapter:
    """An adapter of a method, from its defaults but for `FEW`, on pictures that `pictures` made. Not to be changed."""
    return _fitted(method, tuple((path.stem, path.read_bytes()) for path in paths), space)


@cache
def _fitted(method: str, pictures: tuple[tuple[str, bytes], ...], space: Literal["joint", "backbone"]) -> Adapter:
    names, seen = [name for name, _ in pictures], _features(tuple(data for _, data in pictures))
    labels = np.array([CLASSES.index(name.partition("-")[0]) for name in names])
    adapter: Adapter = ADAPTERS.get(method)(**FEW.get(method, {}))
    return adapter.fit(Samples(task(space), labels, seen, names=names))


def saved(method: str, paths: list[Path], folder: Path, space: Literal["joint", "backbone"] = "backbone") -> Path:
    """The same in files."""
    files.save(folder, fitted(method, paths, space), lite().identity, {"shots": SHOTS})
    return folder
