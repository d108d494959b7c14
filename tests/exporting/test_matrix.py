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
from tests.exporting.conftest import Builder, Maker
from tests.models.tiny import FAMILIES

TOLERANCE = 1e-4  # of a unit feature, in f32


@dataclass(frozen=True)
class Column:
    """A target with what is wished of it. least: of the cosines; where it is 1, in f32, a value may be off by 1e-4."""

    target: str
    wish: dict[str, Any] = field(default_factory=dict)
    least: float = 1.0


COLUMNS = {
    "onnx": Column("onnx"),
    "fp16": Column("fp16", least=0.9999),
    "int8 weights": Column("onnx", {"int8": "weights"}, 0.999),
    "int8 dynamic": Column("onnx", {"int8": "dynamic"}, 0.99),
    "int8 static": Column("onnx", {"int8": "static"}, 0.97),
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


BIASED = {"onnx", "safetensors", "hf", "head"}  # tiny-vit with a logit bias: what networks hold is tiny-vit's


def cells() -> list[Any]:
    """All of it; one family is enough while one works."""
    slow = pytest.mark.slow
    return [
        pytest.param(family, name, id=f"{family}, {name}", marks=() if family == "tiny-vit" else slow)
        for family in FAMILIES
        for name in COLUMNS
        if family != "tiny-vit-sigmoid" or name in BIASED
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
    built: Builder,
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
    folder, written = built(column.target, family, **column.wish)
    before, after = target.reference(given.encoder, None), target.open(folder)
    pixels = np.stack([before.preprocess(picture) for picture in samples.pictures])
    expected, trunk = before.encode_images(pixels, backbone=True)
    found, behind = after.encode_images(pixels, backbone=True)
    rows = [(expected, found)]
    assert np.array_equal(after.encode_images(pixels[2:3])[0][0], found[2]), "a row depends on its neighbours"
    if target.runtime:
        assert (behind is None) == (trunk is None)
    if behind is not None and trunk is not None and column.least == 1:
        np.testing.assert_allclose(behind, trunk, atol=TOLERANCE * max(1.0, np.abs(trunk).max()))
    if not target.answers:
        texts = list(samples.texts)
        rows.append((before.encode_texts(texts), after.encode_texts(texts)))
        assert np.array_equal(after.encode_texts(texts[1:2])[0], rows[1][1][1]), "a row depends on its neighbours"
        assert (after.identity.digest == before.identity.digest) == written.same_weights
        assert after.logit_scale == pytest.approx(before.logit_scale)
        assert after.logit_bias == pytest.approx(before.logit_bias)
    for expected, found in rows:
        assert found.shape == expected.shape
        if column.least == 1:
            np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE)
        assert _cosines(expected, found).min() >= max(target.limits.cosine, min(column.least, 1 - TOLERANCE))
        assert np.std(expected, axis=0).max() > TOLERANCE, "a model that says the same of everything shows nothing"


def _cosines(expected: np.ndarray, found: np.ndarray) -> np.ndarray:
    first, second = expected.astype(np.float64), found.astype(np.float64)
    cosines: np.ndarray = (first * second).sum(1) / np.sqrt((first**2).sum(1) * (second**2).sum(1))
    return cosines
