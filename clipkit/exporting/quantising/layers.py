"""The layers of an ONNX graph that hold its weights: what there is to quantise, whoever made the graph."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import onnx
from onnx import helper, numpy_helper

Kind = Literal["linear", "convolution", "embedding"]
_VOCABULARY: Final = 1000  # rows of a table from which on it is one of words; smaller ones are of positions
_FOLDED: Final = frozenset({"Cast", "Constant", "Identity", "Transpose"})
_WEIGHTS: Final = {"MatMul": 1, "Gemm": 1, "Conv": 1, "Gather": 0}  # which input of a node they are
_FLOATS: Final = (np.float16, np.float32)


@dataclass(frozen=True)
class Layer:
    """A node with a constant weight. name: its module. given: the name of its activations (ids of an embedding).

    flipped: the graph holds the inputs of a linear layer first.
    """

    node: Any
    kind: Kind
    name: str
    given: str
    flipped: bool
    tensor: Any

    @property
    def weight(self) -> np.ndarray:
        """f32, the outputs first: [outputs, inputs] of a linear layer, [outputs, inputs, ...] of a convolution,
        [words, width] of an embedding. Read anew each time, so that a model isn't held twice."""
        value = numpy_helper.to_array(self.tensor)
        return value.T if self.flipped else value

    @property
    def constant(self) -> str:
        """The weight's name in the graph."""
        return str(self.tensor.name)

    @property
    def size(self) -> int:
        """How many numbers the weight has."""
        return prod(self.tensor.dims)

    @property
    def outputs(self) -> int:
        """How many outputs, channels or words it has."""
        return int(self.tensor.dims[1 if self.flipped else 0])


def load(path: Path) -> onnx.ModelProto:
    """A graph with what is only another form of a weight (transposed, cast, named anew) made a weight itself."""
    model = onnx.load(str(path))
    graph = model.graph
    kept = []
    weights = {tensor.name: tensor for tensor in graph.initializer}
    shown = {output.name for output in graph.output}
    for node in graph.node:
        constant = node.op_type in _FOLDED and all(name in weights for name in node.input)
        if not constant or node.output[0] in shown or (value := _folded(node, weights)) is None:
            kept.append(node)
            continue
        weights[node.output[0]] = numpy_helper.from_array(np.ascontiguousarray(value), node.output[0])
        graph.initializer.append(weights[node.output[0]])
    replace_nodes(model, kept)
    del graph.value_info[:]  # shapes noted for weights too: a quantiser that transposes one writes a contradiction
    return model


def layers(model: onnx.ModelProto) -> Iterator[Layer]:
    """The layers of a graph that `load` gave, in its order."""
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        at = _WEIGHTS.get(node.op_type, -1)
        tensor = weights.get(node.input[at]) if at >= 0 else None
        if tensor is None or tensor.data_type != onnx.TensorProto.FLOAT or (kind := _kind(node, tensor)) is None:
            continue
        flipped = node.op_type == "MatMul" or (node.op_type == "Gemm" and not attribute(node, "transB", 0))
        yield Layer(node, kind, name_of(node), node.input[1 - at], flipped, tensor)


def attribute(node: Any, name: str, otherwise: Any) -> Any:
    """An attribute of a node."""
    found = next((entry for entry in node.attribute if entry.name == name), None)
    return otherwise if found is None else helper.get_attribute_value(found)


def name_of(node: Any) -> str:
    """What a person knows a node by: its module in the model, where the exporter left that."""
    for entry in node.metadata_props:
        if entry.key == "pkg.torch.onnx.name_scopes":
            scopes = [scope for scope in ast.literal_eval(entry.value)[:-1] if scope]
            return scopes[-1] if scopes else str(node.name)
    return str(node.name or node.output[0])


def replace_nodes(model: onnx.ModelProto, nodes: list[Any]) -> None:
    """Give a graph other nodes, and drop the weights that none of them reads."""
    graph = model.graph
    del graph.node[:]
    graph.node.extend(nodes)
    read = {name for node in nodes for name in node.input} | {output.name for output in graph.output}
    weights = [tensor for tensor in graph.initializer if tensor.name in read]
    del graph.initializer[:]
    graph.initializer.extend(weights)


def _kind(node: Any, tensor: Any) -> Kind | None:
    rank = len(tensor.dims)
    if node.op_type == "Conv":
        return "convolution"
    if rank != 2:
        return None
    if node.op_type == "Gather":
        words = attribute(node, "axis", 0) == 0 and tensor.dims[0] >= _VOCABULARY
        return "embedding" if words else None
    plain = {"alpha": 1.0, "beta": 1.0, "transA": 0}
    return "linear" if all(attribute(node, name, value) == value for name, value in plain.items()) else None


def _folded(node: Any, weights: dict[str, Any]) -> np.ndarray | None:
    """What a node makes of constants; None if it is nothing for us."""
    if node.op_type == "Constant":
        value = attribute(node, "value", None)
        return None if value is None else numpy_helper.to_array(value)
    value = numpy_helper.to_array(weights[node.input[0]])
    if node.op_type == "Transpose":
        return np.transpose(value, attribute(node, "perm", None))
    if node.op_type == "Cast":
        to = helper.tensor_dtype_to_np_dtype(attribute(node, "to", 0))
        return value.astype(to) if value.dtype in _FLOATS and to in _FLOATS else None
    return value
