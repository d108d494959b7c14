"""Preprocessing as part of a graph: pixels of any size in, as `clipkit.images.transform` prepares them.

The resize is ONNX's own, antialiased, on 8-bit values: onnxruntime computes it in Pillow's fixed-point arithmetic. Each
side is resized by a step of its own, in Pillow 13's order, for values are rounded in between: the width comes first,
but for pictures that lose height, and more than twice as many rows as columns. So even of noise 99.9 % of values are
equal and the others off by 1 of 255, hardly ever 2; bilinear meets ties (98 %). Strips that are enlarged are further
off: who has some resizes them before, as `clipkit.models.exported` does. On floats, as converters have it who decode
first, one value in five would be off. Sizes are computed in doubles, as Python computes them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from clipkit.errors import ClipkitError
from clipkit.exporting import files
from clipkit.models.base import Preprocess

_INPUT = "pixels"
_OPSET = 18  # the first whose Resize is antialiased
_FLOAT, _INT, _DOUBLE = 1, 7, 11  # of onnx.TensorProto


def with_preprocessing(graph_path: Path, preprocess: Preprocess, out_path: Path) -> None:
    """Put the preprocessing before a graph whose one input is `pixels`, f32 [n, 3, h, w].

    The graph written to OUT_PATH takes `pixels`, u8 [n, height, width, 3]: upright RGB, all pictures of a batch of one
    size. Raises ClipkitError for a graph of an opset without an antialiased resize.
    """
    import onnx
    from onnx import TensorProto, helper

    model = onnx.load(str(graph_path))
    opset = files.opset_of(graph_path)
    if opset < _OPSET:
        raise ClipkitError(f"a graph of opset {opset} has no antialiased resize", f"--opset {_OPSET} or later")
    (taken,) = model.graph.input
    inner = f"{_INPUT}.normalised"
    for node in model.graph.node:
        for index, name in enumerate(node.input):
            if name == _INPUT:
                node.input[index] = inner
    batch = taken.type.tensor_type.shape.dim[0].dim_param or 1
    before = _Nodes()
    before.preprocess(preprocess, inner)
    nodes = [*before.nodes, *model.graph.node]
    del model.graph.node[:], model.graph.input[:]
    model.graph.node.extend(nodes)
    model.graph.initializer.extend(before.constants)
    model.graph.input.append(helper.make_tensor_value_info(_INPUT, TensorProto.UINT8, [batch, "height", "width", 3]))
    files.save(model, out_path)


class _Nodes:
    """Nodes as they are written down, and the constants that they take."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def constant(self, value: Any, dtype: Any) -> str:
        from onnx import numpy_helper

        name = f"preprocess.constant.{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(value, dtype), name))
        return name

    def op(self, kind: str, *inputs: str, out: str = "", **attributes: Any) -> str:
        """One node of one output, whose name is given back."""
        from onnx import helper

        name = f"preprocess.{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [out or name], name=name, **attributes))
        return out or name

    def whole(self, *values: int) -> str:
        return self.constant(values, np.int64)

    def double(self, value: str) -> str:
        return self.op("Cast", value, to=_DOUBLE)

    def preprocess(self, preprocess: Preprocess, out: str) -> None:
        """From `pixels` [n, h, w, 3] to OUT [n, 3, h, w], normalised."""
        target = self.whole(*preprocess.size)
        rows = self.op("Transpose", _INPUT, perm=[0, 3, 1, 2])
        size = self.op("Shape", rows, start=2)
        resized = self.resized(preprocess, size, target)
        cubic = preprocess.interpolation == "bicubic" or is_uneven(preprocess)
        for sides in (self.one_side(size, resized), resized):
            rows = self.op(
                "Resize",
                rows,
                "",
                "",
                self.op("Concat", self.op("Shape", rows, end=2), sides, axis=0),
                mode="cubic" if cubic else "linear",
                antialias=1,
                cubic_coeff_a=-0.5,
                exclude_outside=1,
                coordinate_transformation_mode="half_pixel",
            )
        if preprocess.resize_mode != "squash":
            rows = self.centre(rows, resized, target, preprocess.fill if preprocess.resize_mode == "longest" else 0)
        values = self.op("Div", self.op("Cast", rows, to=_FLOAT), self.constant(255, np.float32))
        mean, std = (
            self.constant(np.reshape(part, (3, 1, 1)), np.float32) for part in (preprocess.mean, preprocess.std)
        )
        self.op("Div", self.op("Sub", values, mean), std, out=out)

    def resized(self, preprocess: Preprocess, size: str, target: str) -> str:
        """(height, width) that the whole picture is resized to; `transform` has the same in Python."""
        mode = preprocess.resize_mode
        if mode == "squash":
            return target
        if mode == "shortest" and not is_uneven(preprocess):
            short = self.whole(preprocess.resize or preprocess.size[0])
            return self.op("Div", self.op("Mul", size, short), self.op("ReduceMin", size))
        sides = self.double(size)
        ratios = self.op("Div", sides, self.double(target))
        ratio = self.op("ReduceMax" if mode == "longest" else "ReduceMin", ratios)
        return self.op("Max", self.op("Cast", self.op("Round", self.op("Div", sides, ratio)), to=_INT), self.whole(1))

    def one_side(self, size: str, resized: str) -> str:
        """(height, width) of a picture of which one side is resized: the one that Pillow resizes first."""
        less_rows, less_columns = (
            self.op("Slice", self.op("Sub", size, resized), self.whole(side), self.whole(side + 1)) for side in (0, 1)
        )
        many = self.op("Max", self.op("Mul", less_columns, self.whole(2)), self.whole(0))
        chosen = self.op("Equal", self.op("Greater", less_rows, many), self.constant((True, False), np.bool_))
        return self.op("Where", chosen, resized, size)

    def centre(self, rows: str, size: str, target: str, fill: int) -> str:
        """The centre of pictures [n, 3, h, w], padded where they are smaller, as torchvision rounds it."""
        nothing, none = self.whole(0), self.whole(0, 0)
        lack = self.op("Max", self.op("Sub", target, size), nothing)
        before = self.op("Div", lack, self.whole(2))
        pads = self.op("Concat", none, before, none, self.op("Sub", lack, before), axis=0)
        rows = self.op("Pad", rows, pads, self.constant(fill, np.uint8))
        over = self.op("Max", self.op("Sub", size, target), nothing)
        half = self.op("Div", self.double(over), self.constant(2, np.float64))
        start = self.op("Cast", self.op("Round", half), to=_INT)
        return self.op("Slice", rows, start, self.op("Add", start, target), self.whole(2, 3))


def is_uneven(preprocess: Preprocess) -> bool:
    """Whether the short side alone doesn't say what a picture is resized to; open_clip takes bicubic then."""
    height, width = preprocess.size
    return preprocess.resize_mode == "shortest" and height != width and not preprocess.resize
