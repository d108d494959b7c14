"""The two ONNX graphs of `lite`, written node by node: small files, and nothing left for onnxruntime to optimise.

Each takes one image or one text a run, so that a row cannot depend on its neighbours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from lite.alignment import Head

Weights = Mapping[str, np.ndarray]  # a checkpoint's tensors by name

CONTRIB = "com.microsoft"
OPSET, IR_VERSION = 18, 9

# MobileNet-style stages of EfficientNet-Lite0 (Tan and Le, 2019): stride, expansion, channels, blocks
STAGES = (
    (1, 1, 16, 1),
    (2, 6, 24, 2),
    (2, 6, 40, 2),
    (2, 6, 80, 3),
    (1, 6, 112, 3),
    (2, 6, 192, 4),
    (1, 6, 320, 1),
)
BATCH_NORM_EPSILON = 1e-3
TEMPERATURE = 1.5
KEPT_CLASSES = 50
GUESS = 0.6  # weight of the direction guessed from the features beside the mixture of class directions
DETAIL = 2.0  # weight of the detail part beside the semantic part, which alone meets texts

TEXT_LAYERS, TEXT_HEADS, TEXT_WIDTH, TEXT_EPSILON = 6, 12, 384, 1e-12
BLOCK = 32  # weights that share a scale


class Graph:
    """An ONNX graph under construction: constants, then nodes, in the order that they are called for."""

    def __init__(self) -> None:
        self._nodes: list[Any] = []
        self._constants: list[Any] = []

    def constant(self, name: str, value: np.ndarray | float) -> str:
        """A constant as it is, save that float64 is stored as f32."""
        value = np.asarray(value, order="C")
        if value.dtype == np.float64:
            value = value.astype(np.float32)
        self._constants.append(numpy_helper.from_array(value, name))
        return name

    def half(self, name: str, value: np.ndarray) -> str:
        """A constant stored as f16 and used as f32: onnxruntime folds the cast when it loads.

        Adding 0 makes -0, which the last bit of a sum may decide, a plain 0: the same bytes from any BLAS.
        """
        self.constant(f"{name}.f16", value.astype(np.float16) + np.float16(0))
        return self.node("Cast", [f"{name}.f16"], name, to=TensorProto.FLOAT)

    def node(self, op: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        self.nodes(op, inputs, [output], **attributes)
        return output

    def nodes(self, op: str, inputs: Sequence[str], outputs: Sequence[str], **attributes: Any) -> None:
        self._nodes.append(helper.make_node(op, inputs, outputs, **attributes))

    def save(self, path: Path, name: str, inputs: Sequence[Any], outputs: Sequence[Any]) -> None:
        graph = helper.make_graph(self._nodes, name, inputs, outputs, self._constants)
        opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(CONTRIB, 1)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="clipkit")
        path.write_bytes(model.SerializeToString(deterministic=True))


def image_graph(path: Path, weights: Weights, head: Head, basis: np.ndarray) -> None:
    """pixels f32 [1, 3, 224, 224] to joint f32 [1, 512] and pooled f32 [1, 1280]."""
    graph = Graph()
    pooled = _backbone(graph, weights)
    classifier = [graph.half("classifier", weights["_fc.weight"]), graph.constant("bias", weights["_fc.bias"])]
    logits = graph.node("Gemm", [pooled, *classifier], "logits", transB=1)
    semantic = _semantic(graph, logits, pooled, head)
    projected = graph.node("MatMul", [pooled, graph.half("detail_basis", basis)], "projected")
    detail = graph.node("Mul", [_unit(graph, projected), graph.constant("detail_weight", DETAIL)], "detail")
    both = graph.node("Concat", [semantic, detail], "both", axis=-1)
    graph.node("LpNormalization", [both], "joint", axis=-1, p=2)
    graph.save(
        path,
        "lite-image",
        [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, [1, 3, 224, 224])],
        [
            helper.make_tensor_value_info("joint", TensorProto.FLOAT, [1, TEXT_WIDTH + basis.shape[1]]),
            helper.make_tensor_value_info("pooled", TensorProto.FLOAT, [1, len(basis)]),
        ],
    )


def text_graph(path: Path, weights: Weights, head: Head, context: int, padding: int) -> None:
    """ids i64 [1, tokens] to joint f32 [1, 384 + padding]: no batch, so no padding tokens and no attention mask."""
    graph = Graph()
    x = _embeddings(graph, weights, context)
    for layer in range(TEXT_LAYERS):
        x = _text_layer(graph, weights, layer, x)
    mean = graph.node("ReduceMean", [x, graph.constant("token_axis", np.array([1]))], "mean", keepdims=0)
    embedding = _unit(graph, mean)
    centred = graph.node("Sub", [embedding, graph.constant("text_mean", head.text_mean)], "centred")
    direction = _unit(
        graph, graph.node("MatMul", [_unit(graph, centred), graph.half("whitening", head.whitening)], "whitened")
    )
    alike = graph.node("MatMul", [direction, graph.half("anchors_t", head.anchors.T)], "alike")
    positive = graph.node("Relu", [alike], "positive")
    likeness = _unit(graph, graph.node("Mul", [positive, positive], "likeness"))
    both = graph.node("Concat", [direction, likeness], "described", axis=-1)
    semantic = _unit(graph, graph.node("MatMul", [both, graph.half("basis", head.basis)], "semantic"))
    zeros = graph.constant("no_detail", np.zeros((1, padding), np.float32))
    graph.node("Concat", [semantic, zeros], "joint", axis=-1)
    graph.save(
        path,
        "lite-text",
        [helper.make_tensor_value_info("ids", TensorProto.INT64, [1, "tokens"])],
        [helper.make_tensor_value_info("joint", TensorProto.FLOAT, [1, TEXT_WIDTH + padding])],
    )


def _quantise(weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A layer [outputs, inputs] as MatMulNBits wants it: u8 [outputs, blocks, 32], scales [outputs, blocks]."""
    blocks = weight.reshape(len(weight), -1, BLOCK)
    scales = np.abs(blocks).max(-1) / np.float32(127)
    return (np.rint(blocks / scales[..., None]) + 128).astype(np.uint8), scales


def _backbone(graph: Graph, weights: Weights) -> str:
    """EfficientNet-Lite0 with its batch norms folded into the convolutions; returns the pooled features."""
    graph.constant("zero", 0.0)
    graph.constant("six", 6.0)
    x = _convolution(graph, weights, ("_conv_stem", "_bn0"), "pixels", stride=2)
    channels, block = 32, 0
    for first_stride, expansion, width, blocks in STAGES:
        for stride in (first_stride,) + (1,) * (blocks - 1):
            name, y = f"_blocks.{block}.", x
            if expansion > 1:
                y = _convolution(graph, weights, (f"{name}_expand_conv", f"{name}_bn0"), y)
            y = _convolution(graph, weights, (f"{name}_depthwise_conv", f"{name}_bn1"), y, stride, channels * expansion)
            y = _convolution(graph, weights, (f"{name}_project_conv", f"{name}_bn2"), y, active=False)
            if stride == 1 and channels == width:
                y = graph.node("Add", [x, y], f"{name}sum")
            x, channels, block = y, width, block + 1
    x = _convolution(graph, weights, ("_conv_head", "_bn1"), x)
    return graph.node("Flatten", [graph.node("GlobalAveragePool", [x], "pool")], "pooled")


def _convolution(
    graph: Graph,
    weights: Weights,
    names: tuple[str, str],
    x: str,
    stride: int = 1,
    groups: int = 1,
    active: bool = True,
) -> str:
    """A convolution and its batch norm (their names), folded in float64, and a ReLU6 if active."""
    name, norm = names
    kernel = weights[f"{name}.weight"].astype(np.float64)
    parts = ("weight", "bias", "running_mean", "running_var")
    gain, shift, mean, variance = (weights[f"{norm}.{part}"].astype(np.float64) for part in parts)
    scale = gain / np.sqrt(variance + BATCH_NORM_EPSILON)
    size = kernel.shape[-1]
    # TensorFlow's SAME padding: with an even input and stride 2 the odd pixel goes below and to the right
    before, after = (size // 2, size // 2) if stride == 1 else ((size - 2) // 2, (size - 1) // 2)
    folded = [
        graph.half(f"{name}.kernel", kernel * scale[:, None, None, None]),
        graph.constant(f"{name}.shift", shift - mean * scale),
    ]
    pads = [before, before, after, after]
    y = graph.node("Conv", [x, *folded], f"{name}.linear", strides=[stride, stride], pads=pads, group=groups)
    return graph.node("Clip", [y, "zero", "six"], f"{name}.out") if active else y


def _semantic(graph: Graph, logits: str, pooled: str, head: Head) -> str:
    """The image described by class directions and by class probabilities, on the principal axes; unit [1, 384].

    Of the probabilities at temperature 1.5 the 50 largest count.
    """
    cooled = graph.node("Div", [logits, graph.constant("temperature", TEMPERATURE)], "cooled")
    probabilities = graph.node("Softmax", [cooled], "probabilities", axis=-1)
    graph.nodes("TopK", [probabilities, graph.constant("kept", np.array([KEPT_CLASSES]))], ["top", "top_at"], axis=-1)
    classes = graph.node("Squeeze", ["top_at", graph.constant("image_axis", np.array([0]))], "classes")
    density = graph.node("Gather", [graph.constant("density", head.density), classes], "top_density")
    weights = graph.node("Mul", ["top", density], "weights")

    anchors = graph.node("Gather", [graph.half("anchors", head.anchors), classes], "top_anchors")
    mixture = _unit(graph, graph.node("MatMul", [weights, anchors], "mixture"))
    guess = _unit(graph, graph.node("MatMul", [pooled, graph.half("feature_map", head.feature_map)], "guess"))
    share = graph.node("Mul", [guess, graph.constant("guess_share", GUESS)], "shared_guess")
    direction = _unit(graph, graph.node("Add", [mixture, share], "direction"))

    width = head.anchors.shape[1]
    seen = graph.node("MatMul", [direction, graph.half("direction_basis", head.basis[:width])], "seen_direction")
    rows = graph.node("Gather", [graph.half("class_basis", head.basis[width:]), classes], "top_class_basis")
    known = graph.node("MatMul", [_unit(graph, weights), rows], "seen_classes")
    return _unit(graph, graph.node("Add", [seen, known], "semantic"))


def _unit(graph: Graph, x: str) -> str:
    return graph.node("LpNormalization", [x], f"{x}.unit", axis=-1, p=2)


def _embeddings(graph: Graph, weights: Weights, context: int) -> str:
    words = weights["embeddings.word_embeddings.weight"]
    scales = np.abs(words).max(1, keepdims=True) / np.float32(127)
    table = np.rint(np.divide(words, scales, out=np.zeros_like(words), where=scales > 0)).astype(np.int8)
    positions = weights["embeddings.position_embeddings.weight"][:context]
    positions = positions + weights["embeddings.token_type_embeddings.weight"][0]
    rows = graph.node("Gather", [graph.constant("words", table), "ids"], "word_rows")
    sizes = graph.node("Gather", [graph.constant("word_scales", scales), "ids"], "row_scales")
    exact = graph.node("Mul", [graph.node("Cast", [rows], "word_floats", to=TensorProto.FLOAT), sizes], "word_vectors")
    length = graph.node("Shape", ["ids"], "length", start=1, end=2)
    start = graph.constant("start", np.array([0]))
    places = graph.node("Slice", [graph.constant("positions", positions), start, length], "places")
    return _layer_norm(graph, weights, "embeddings.LayerNorm", [graph.node("Add", [exact, places], "placed")])


def _text_layer(graph: Graph, weights: Weights, layer: int, x: str) -> str:
    name = f"encoder.layer.{layer}."
    projections = [f"{name}attention.self.{part}" for part in ("query", "key", "value")]
    parts = [f"{name}{part}" for part in ("query", "key", "value")]
    graph.nodes("Split", [_dense(graph, weights, projections, x)], parts, axis=-1, num_outputs=3)
    attention = graph.node("MultiHeadAttention", parts, f"{name}attention", domain=CONTRIB, num_heads=TEXT_HEADS)
    attended = _dense(graph, weights, [f"{name}attention.output.dense"], attention)
    x = _layer_norm(graph, weights, f"{name}attention.output.LayerNorm", [attended, x])
    wide = _dense(graph, weights, [f"{name}intermediate.dense"], x)
    active = graph.node("Gelu", [wide], f"{name}gelu", domain=CONTRIB)
    narrow = _dense(graph, weights, [f"{name}output.dense"], active)
    return _layer_norm(graph, weights, f"{name}output.LayerNorm", [narrow, x])


def _dense(graph: Graph, weights: Weights, names: Sequence[str], x: str) -> str:
    """One or more dense layers of the same input, side by side, with 8-bit weights and exact biases.

    accuracy_level 4: a token's activations are rounded to 8 bits too, a scale per 32, and integers are multiplied.
    """
    weight = np.concatenate([weights[f"{name}.weight"] for name in names])
    bias = np.concatenate([weights[f"{name}.bias"] for name in names])
    output = names[0]
    blocks, scales = _quantise(weight)
    constants = {f"{output}.blocks": blocks, f"{output}.scales": scales, f"{output}.bias": bias}
    at_blocks, at_scales, at_bias = (graph.constant(name, value) for name, value in constants.items())
    shape = {"N": weight.shape[0], "K": weight.shape[1], "bits": 8, "block_size": BLOCK, "accuracy_level": 4}
    inputs = [x, at_blocks, at_scales, "", "", at_bias]  # without zero points and group indices
    return graph.node("MatMulNBits", inputs, output, domain=CONTRIB, **shape)


def _layer_norm(graph: Graph, weights: Weights, name: str, terms: Sequence[str]) -> str:
    """LayerNorm of one input, or of the sum of two."""
    gain = graph.constant(f"{name}.gain", weights[f"{name}.weight"])
    shift = graph.constant(f"{name}.shift", weights[f"{name}.bias"])
    if len(terms) == 1:
        return graph.node("LayerNormalization", [*terms, gain, shift], name, axis=-1, epsilon=TEXT_EPSILON)
    return graph.node("SkipLayerNormalization", [*terms, gain, shift], name, domain=CONTRIB, epsilon=TEXT_EPSILON)
