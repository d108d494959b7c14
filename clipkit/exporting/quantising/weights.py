"""Weights in 8 bits: a scale for each block of up to 64 of a layer, and for each word."""

from __future__ import annotations

from collections.abc import Callable, Collection
from math import gcd
from typing import Any, Final

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from clipkit.exporting.quantising.layers import Kind, Layer, layers, replace_nodes

BLOCK: Final = 64  # weights to a scale: 1.06 bytes a weight, and onnxruntime's fast kernels take it
_CONTRIB: Final = "com.microsoft"
_NARROWEST: Final = 16  # that a block may be: 1.25 bytes a weight
Rounding = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
KINDS: Final[tuple[Kind, ...]] = ("linear", "convolution", "embedding")


def quantise(model: onnx.ModelProto, kinds: Collection[Kind] = KINDS) -> None:
    """Round the weights of a graph (`layers.load`) in place. Positions, norms, biases and logit parameters stay f32,
    and so do layers that are not `worth` it.

    Linear layers become MatMulNBits of accuracy level 4: its kernel rounds a token's activations too, with a scale for
    each block, and multiplies integers; on ViT-B-32 that is faster than f32, where exact activations (level 0) are
    slower. Convolutions and embeddings are standard ONNX.
    """
    made = {"linear": _linear, "convolution": _convolution, "embedding": _embedding}
    by_output = {layer.node.output[0]: layer for layer in layers(model) if layer.kind in kinds and worth(layer)}
    constants: dict[str, Any] = {}
    nodes: list[Any] = []
    for node in model.graph.node:
        layer = by_output.get(node.output[0])
        nodes += [node] if layer is None else made[layer.kind](layer, constants)
    model.graph.initializer.extend(constants.values())
    replace_nodes(model, nodes)
    if any(node.domain == _CONTRIB for node in nodes) and all(e.domain != _CONTRIB for e in model.opset_import):
        model.opset_import.append(helper.make_opsetid(_CONTRIB, 1))


def worth(layer: Layer) -> bool:
    """Whether a layer is rounded: not where an output hangs on few weights, whose errors don't cancel (a depthwise
    kernel's 9 to 49: rounded they cost lite .08 of its least cosine), and which are next to nothing of a model."""
    return layer.kind == "embedding" or layer.size // layer.outputs >= BLOCK


def blocks(weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """[n, k] f32 to u8 [n, blocks, 64] around 128, padded with zeros, and scales f32 [n, blocks]."""
    missing = -weight.shape[1] % BLOCK
    parts = np.pad(weight, ((0, 0), (0, missing))).reshape(len(weight), -1, BLOCK)
    rounded, scales = rows(parts.reshape(-1, BLOCK))
    shifted = (rounded.astype(np.int16) + 128).astype(np.uint8)
    return shifted.reshape(parts.shape), scales.reshape(parts.shape[:2])


def rows(weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """[n, ...] f32 to i8 of the same shape, in -127..127, and scales f32 [n]: the largest of a row over 127."""
    flat = weight.reshape(len(weight), -1)
    scales = np.abs(flat).max(axis=1) / np.float32(127)
    divisors = np.where(scales > 0, scales, np.float32(1))
    return np.rint(flat / divisors[:, None]).astype(np.int8).reshape(weight.shape), scales


def kernels(weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """[n, ...] f32 to i8 [n, blocks, width] and scales f32 [n, blocks, 1]: blocks of 64, 32 or 16 where they fill a
    channel, else the channel whole."""
    width = gcd(weight[0].size, BLOCK)
    width = width if width >= _NARROWEST else weight[0].size
    rounded, scales = rows(weight.reshape(-1, width))
    return rounded.reshape(len(weight), -1, width), scales.reshape(len(weight), -1, 1)


def words(weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """[words, width] f32 to i8 of that shape and scales f32 [words, 1]."""
    rounded, scales = rows(weight)
    return rounded, scales[:, None]


def restored(layer: Layer) -> np.ndarray:
    """A layer's weight after the round trip through 8 bits, f32 of its shape."""
    exact: np.ndarray
    if layer.kind == "linear":
        shifted, scales = blocks(layer.weight)
        exact = ((shifted.astype(np.float32) - 128) * scales[..., None]).reshape(len(shifted), -1)
        exact = exact[:, : layer.weight.shape[1]]
    else:
        rounded, scales = (kernels if layer.kind == "convolution" else words)(layer.weight)
        exact = (rounded * scales).reshape(layer.weight.shape)
    return exact


def _linear(layer: Layer, constants: dict[str, Any]) -> list[Any]:
    node, weight, made = layer.node, layer.weight, layer.node.output[0]
    name = f"{layer.constant}.{'columns' if layer.flipped else 'rows'}"  # two nodes may read one weight in two ways
    parts = _constants(constants, name, blocks, weight)
    bias = node.input[2] if len(node.input) > 2 else ""
    product = f"{made}.product" if bias else made
    attributes = {"K": weight.shape[1], "N": len(weight), "bits": 8, "block_size": BLOCK, "accuracy_level": 4}
    new = [_node("MatMulNBits", [layer.given, *parts], product, domain=_CONTRIB, **attributes)]
    return [*new, _node("Add", [product, bias], made)] if bias else new


def _convolution(layer: Layer, constants: dict[str, Any]) -> list[Any]:
    """int8, cast and scaled: onnxruntime does both once, when it loads the graph. It would repeat a DequantizeLinear
    for each picture, and then take slower kernels (three times the time on a small ConvNeXt)."""
    made = layer.node.output[0]
    rounded, scales = _constants(constants, layer.constant, kernels, layer.weight)
    shape = f"{layer.constant}.shape"
    constants[shape] = numpy_helper.from_array(np.array(layer.tensor.dims), shape)
    changed = onnx.NodeProto()
    changed.CopyFrom(layer.node)
    changed.input[1] = f"{made}.kernel"
    flat = f"{made}.blocks"
    return [*_scaled(rounded, scales, flat), _node("Reshape", [flat, shape], f"{made}.kernel"), changed]


def _embedding(layer: Layer, constants: dict[str, Any]) -> list[Any]:
    made = layer.node.output[0]
    table, scales = _constants(constants, layer.constant, words, layer.weight)
    rows_of_words = [
        _node("Gather", [part, layer.given], f"{made}.{name}", axis=0)
        for part, name in ((table, "words"), (scales, "sizes"))
    ]
    return [*rows_of_words, *_scaled(f"{made}.words", f"{made}.sizes", made)]


def _scaled(rounded: str, scales: str, made: str) -> list[Any]:
    whole = f"{made}.whole"
    return [_node("Cast", [rounded], whole, to=TensorProto.FLOAT), _node("Mul", [whole, scales], made)]


def _node(kind: str, given: list[str], made: str, **attributes: Any) -> Any:
    return helper.make_node(kind, given, [made], made, **attributes)


def _constants(constants: dict[str, Any], name: str, rounding: Rounding, weight: np.ndarray) -> tuple[str, str]:
    """The names of a weight's two parts, which are made once however many nodes read it."""
    names = f"{name}.i8", f"{name}.scales"
    if names[0] not in constants:
        for part, value in zip(names, rounding(weight), strict=True):
            constants[part] = numpy_helper.from_array(np.ascontiguousarray(value), part)
    return names
