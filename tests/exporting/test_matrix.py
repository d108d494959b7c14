"""Every family of models in every form: true to its source, or refused by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clipkit.errors import ClipkitError
from clipkit.exporting.base import Target, Wish
from clipkit.exporting.samples import Samples
from clipkit.exporting.source import Source
from clipkit.methods import EXPORTERS
from clipkit.models.base import Encoder
from tests.exporting.conftest import Maker
from tests.models.tiny import FAMILIES

TOLERANCE = 1e-4  # of a unit feature, in f32


@dataclass(frozen=True)
class Column:
    """A target with what is wished of it. exact: in f32, where a value may be off by 1e-4; else its stated limits."""

    target: str
    wish: dict[str, Any] = field(default_factory=dict)
    exact: bool = True


COLUMNS = {
    "onnx": Column("onnx"),
    "fp16": Column("fp16", exact=False),
    "int8 weights": Column("onnx", {"int8": "weights"}, exact=False),
    "int8 dynamic": Column("onnx", {"int8": "dynamic"}, exact=False),
    "int8 static": Column("onnx", {"int8": "static"}, exact=False),
    "openvino": Column("openvino"),
    "torch.export": Column("torch.export"),
    "safetensors": Column("safetensors"),
    "hf": Column("hf"),
    "head": Column("head", {"labels": "cat,dog,boat"}),
}
ELSEWHERE = {"coreml", "executorch"}  # extras: their own tests, where they are installed

REFUSED = {
    ("tiny-vit-sigmoid", "hf"): "CLIPModel cannot hold tiny-vit-sigmoid:model.safetensors: it has a logit bias",
    ("tiny-resnet", "hf"): "its image tower is a ModifiedResNet, not a vision transformer",
    ("tiny-convnext", "hf"): "its image tower is a ConvNeXt, not a vision transformer",
    ("tiny-coca", "hf"): "it has a text decoder (CoCa)",
    ("tiny-sigmoid", "hf"): "SiglipModel cannot hold tiny-sigmoid:model.safetensors: its image tower has a class token",
}


def cells() -> list[Any]:
    """All of it; one family is enough while one works."""
    slow = pytest.mark.slow
    return [
        pytest.param(family, name, id=f"{family}, {name}", marks=() if family == "tiny-vit" else slow)
        for family in FAMILIES
        for name in COLUMNS
    ]


def test_no_target_is_left_out() -> None:
    assert {column.target for column in COLUMNS.values()} | ELSEWHERE == set(EXPORTERS.names())
    assert {family for family, _ in REFUSED} <= set(FAMILIES)
    assert {name for _, name in REFUSED} <= set(COLUMNS)


@pytest.mark.parametrize(("family", "name"), cells())
def test_cell(
    family: str,
    name: str,
    source: Callable[[str], Source],
    make: Maker,
    samples: Samples,
    tmp_path: Path,
) -> None:
    column, given = COLUMNS[name], source(family)
    target: Target = EXPORTERS.get(column.target)(Wish(**column.wish))
    if why := REFUSED.get((family, name)):
        with pytest.raises(ClipkitError) as caught:
            make(column.target, given, tmp_path / "out", **column.wish)
        assert why in caught.value.message
        assert not list((tmp_path / "out").iterdir())
        return
    written = make(column.target, given, tmp_path / "out", **column.wish)
    before, after = target.reference(given.encoder, None), target.open(tmp_path / "out")
    rows = [(_images(before, samples), _images(after, samples))]
    if not target.answers:
        texts = list(samples.texts)
        rows.append((before.encode_texts(texts), after.encode_texts(texts)))
        assert (after.identity.digest == before.identity.digest) == written.same_weights
        assert after.logit_scale == pytest.approx(before.logit_scale)
        assert after.logit_bias == pytest.approx(before.logit_bias)
    for expected, found in rows:
        assert found.shape == expected.shape
        if column.exact:
            np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE)
        assert _cosines(expected, found).min() >= target.limits.cosine
        assert np.std(expected, axis=0).max() > TOLERANCE, "a model that says the same of everything shows nothing"


def _images(encoder: Encoder, samples: Samples) -> np.ndarray:
    return encoder.encode_images([encoder.preprocess(picture) for picture in samples.pictures])[0]


def _cosines(expected: np.ndarray, found: np.ndarray) -> np.ndarray:
    first, second = expected.astype(np.float64), found.astype(np.float64)
    cosines: np.ndarray = (first * second).sum(1) / np.sqrt((first**2).sum(1) * (second**2).sum(1))
    return cosines
