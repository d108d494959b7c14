"""The carried model's image network in the form of an exported one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from clipkit.models.lite.encoder import FOLDER

_ROWS_OF_CLASSES = ("mixture", "seen_classes")  # products of a picture's 50 weights with rows of its 50 classes
_AXIS = "row_axis"


def image_graph(path: Path) -> Path:
    """Write lite's image network to PATH with the outputs `joint` and `backbone`, and a free batch.

    It is carried for one picture. Rows don't depend on their batch, bitwise;
    `backbone` is the carried network's bit for bit, `joint` to 1e-7: its sums over classes run in another order.
    """
    import numpy as np
    import onnx
    from onnx import numpy_helper

    model = onnx.load(str(FOLDER / "image.onnx"))
    graph = model.graph
    nodes = [made for node in graph.node for made in _freed(node)]
    del graph.node[:]
    graph.node.extend(nodes)
    axis = next(tensor for tensor in graph.initializer if tensor.name == "image_axis")
    axis.CopyFrom(numpy_helper.from_array(np.array([1], np.int64), _AXIS))
    for value in (*graph.input, *graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
        value.name = _renamed(value.name)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, str(path))
    return path


def _freed(node: Any) -> list[Any]:
    """A node as it must be for any batch: classes [n, 50] are not squeezed to [50], and a picture's weights [n, 50]
    are rows [n, 1, 50] where they meet the rows of its classes [n, 50, d]."""
    from onnx import helper

    if node.op_type == "Squeeze":
        return []
    for names in (node.input, node.output):
        names[:] = [_renamed(name) for name in names]
    made = node.output[0]
    if made not in _ROWS_OF_CLASSES:
        return [node]
    weights, rows = node.input
    return [
        helper.make_node("Unsqueeze", [weights, _AXIS], [f"{made}.weights"]),
        helper.make_node("MatMul", [f"{made}.weights", rows], [f"{made}.row"]),
        helper.make_node("Squeeze", [f"{made}.row", _AXIS], [made]),
    ]


def _renamed(name: str) -> str:
    return {"pooled": "backbone", "classes": "top_at"}.get(name, name)
