"""fp16: half the size, computed in f32; what f16 cannot hold is an error."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from clipkit.errors import ClipkitError
from clipkit.exporting.source import Source
from clipkit.exporting.targets.fp16 import halved
from clipkit.models.load import load
from tests.exporting.conftest import Builder, Maker, pictures


def test_half_the_size_and_near_the_source(source: Callable[[str], Source], built: Builder) -> None:
    """Other families: test_matrix.py."""
    arch = "tiny-vit"
    folder, written = built("fp16", arch)
    assert (written.precision, written.same_weights) == ("f16", False)
    encoder, whole = load(str(folder)), source(arch).encoder
    assert encoder.identity.weights != whole.identity.weights
    pixels = np.stack([whole.preprocess(picture) for picture in pictures(4)])
    texts = ["a cat", "rain"]
    assert (encoder.encode_images(pixels)[0] * whole.encode_images(pixels)[0]).sum(1).min() > 0.9999
    assert (encoder.encode_texts(texts) * whole.encode_texts(texts)).sum(1).min() > 0.9999
    assert (folder / "text.onnx").stat().st_size < 0.52 * source(arch).graph("text").stat().st_size


def test_the_same_numbers_as_the_rounded_weights_in_f32(source: Callable[[str], Source], tmp_path: Path) -> None:
    """Nothing else is rounded: an f32 graph with weights that went through f16 gives the same bits."""
    from clipkit.models.sessions import open_session

    graph = source("tiny-vit").graph("text")
    rounded = onnx.load(str(graph))
    for tensor in rounded.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT and len(tensor.dims) > 1:
            value = numpy_helper.to_array(tensor).astype(np.float16).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))
    onnx.save(rounded, str(tmp_path / "rounded.onnx"))
    onnx.save(halved(graph)[0], str(tmp_path / "half.onnx"))
    onnx.checker.check_model(str(tmp_path / "half.onnx"))
    tokens = np.random.default_rng(0).integers(1, 400, (3, 77))
    found = [
        open_session(tmp_path / f"{name}.onnx", 1).run(None, {"tokens": tokens})[0] for name in ("rounded", "half")
    ]
    assert np.array_equal(*found)


@pytest.mark.parametrize("value", [70000.0, -1e6, np.inf, np.nan])
def test_a_weight_beyond_f16_is_named(source: Callable[[str], Source], tmp_path: Path, value: float) -> None:
    model = onnx.load(str(source("tiny-vit").graph("image")))
    tensor = next(entry for entry in model.graph.initializer if entry.name == "visual.positional_embedding")
    changed = numpy_helper.to_array(tensor).copy()
    changed[1, 2] = value
    tensor.CopyFrom(numpy_helper.from_array(changed, tensor.name))
    onnx.save(model, str(tmp_path / "g.onnx"))
    with pytest.raises(ClipkitError, match=r"visual\.positional_embedding"):
        halved(tmp_path / "g.onnx")


def test_small_weights_are_counted(source: Callable[[str], Source], tmp_path: Path) -> None:
    model = onnx.load(str(source("tiny-vit").graph("image")))
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * np.float32(1e-6), tensor.name))
    onnx.save(model, str(tmp_path / "g.onnx"))
    assert halved(source("tiny-vit").graph("image"))[1] < 0.01
    assert halved(tmp_path / "g.onnx")[1] > 0.9


def test_what_is_half_already_is_no_other_model(make: Maker, tmp_path: Path) -> None:
    with pytest.raises(ClipkitError, match="16 bits already") as caught:
        make("fp16", "lite", tmp_path / "out", towers=("image",))
    assert "--to onnx" in (caught.value.hint or "")
