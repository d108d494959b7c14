"""Activations in 8 bits: their range taken from what comes (dynamic), or measured once on samples (static)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx

from clipkit.exporting.files import save
from clipkit.exporting.quantising import layers, weights
from clipkit.exporting.quiet import hushed

_LINEAR: Final = ["MatMul", "Gemm"]


def dynamic(path: Path, scratch: Path) -> onnx.ModelProto:
    """The graph at PATH with MatMulInteger for its linear layers; convolutions and embeddings as in `weights`.

    Weights and activations are both unsigned: signed weights saturate in the 16-bit sums of x86 processors without
    VNNI (minimum cosine .993 against .9998 on ViT-B-32), and what is exported doesn't depend on who exports it.
    Only linear layers: of all operators, onnxruntime writes nodes that it cannot load (QAttention at opset 23).
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic

    plain, made = _plain(path, scratch), scratch / f"{path.stem}.dynamic.onnx"
    with hushed():
        quantize_dynamic(plain, made, op_types_to_quantize=_LINEAR, weight_type=QuantType.QUInt8, **_external(plain))
    return _rest(made, ("convolution", "embedding"))


def static(path: Path, scratch: Path, rows: Iterator[np.ndarray]) -> onnx.ModelProto:
    """The graph at PATH with QuantizeLinear and DequantizeLinear around linear layers and convolutions.

    rows: what comes in, [n, ...]: the least and greatest value of each tensor are its range. Weights have a scale for
    each channel: lite's mean cosine rises from .85 to .91, that of transformers stays.
    """
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def get_next(self) -> dict[str, np.ndarray] | None:
            batch = next(rows, None)
            return None if batch is None else {name: batch}

    plain, made = _plain(path, scratch), scratch / f"{path.stem}.static.onnx"
    model = onnx.load(str(plain))
    name = model.graph.input[0].name
    rounded = {layer.node.name for layer in layers.layers(model) if weights.worth(layer)}
    spared = [node.name for node in model.graph.node if node.name not in rounded]  # attention's own products, too
    del model
    with hushed():
        quantize_static(
            plain,
            made,
            Reader(),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=[*_LINEAR, "Conv"],
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QUInt8,
            per_channel=True,
            nodes_to_exclude=spared,
            **_external(plain),
        )
    return _rest(made, ("embedding",))


def _plain(path: Path, scratch: Path) -> Path:
    """The graph with its weights where onnxruntime's quantisers look for them."""
    plain = scratch / f"{path.stem}.plain.onnx"
    model = layers.load(path)
    for node in model.graph.node:
        node.name = node.output[0]  # those that are left out are named, and not every graph names its nodes
    save(model, plain)
    return plain


def _external(plain: Path) -> dict[str, Any]:
    from clipkit.exporting.files import data_file

    return {"use_external_data_format": data_file(plain).exists()}


def _rest(made: Path, kinds: tuple[layers.Kind, ...]) -> onnx.ModelProto:
    model = onnx.load(str(made))
    weights.quantise(model, kinds)
    return model
