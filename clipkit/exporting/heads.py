"""Classifiers as the last steps of an image graph: labels or an adapter, from features to probabilities."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from clipkit.errors import ClipkitError
from clipkit.exporting import files
from clipkit.methods.adapters.base import Adapter, Head
from clipkit.methods.adapters.data import BACKBONE, JOINT, Space, Task

if TYPE_CHECKING:
    from collections.abc import Callable

    import onnx

OUTPUTS = ("probabilities", "logits")
_FLOAT, _DOUBLE = 1, 11  # of onnx.TensorProto


class Steps:
    """A `clipkit.methods.adapters.network.Network` in ONNX.

    It computes in f64 and holds weights in f32: exact for features, which are f32, and half the size. So logits come
    out as the method itself computes them, whatever their scale, and whatever becomes of the f32 weights before them.
    """

    def __init__(self, task: Task) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self.task = task
        self._made: dict[str, str] = {}

    def features(self, space: Space) -> str:
        def make() -> str:
            rows = self._step("Cast", space, to=_DOUBLE)
            return self.unit(rows) if space == BACKBONE else rows  # the graph's joint ones are unit already

        return self._once(space, make)

    def zero_shot(self) -> str:
        task = self.task

        def make() -> str:
            logits = self.times(self.product(self.features(JOINT), task.text), task.scale)
            return self.add(logits, task.bias or 0.0)

        return self._once("zero-shot", make)

    def product(self, rows: str, weights: np.ndarray) -> str:
        held = self._constant(np.ascontiguousarray(weights.T, np.float32))
        return self._step("MatMul", rows, self._step("Cast", held, to=_DOUBLE))

    def add(self, rows: str, other: str | np.ndarray | float) -> str:
        return self._step("Add", rows, other if isinstance(other, str) else self._constant(np.float64(other)))

    def times(self, rows: str, number: float) -> str:
        return self._step("Mul", rows, self._constant(np.float64(number)))

    def at_most(self, rows: str, number: float) -> str:
        return self._step("Min", rows, self._constant(np.float64(number)))

    def above_zero(self, rows: str) -> str:
        return self._step("Relu", rows)

    def exp(self, rows: str) -> str:
        return self._step("Exp", rows)

    def unit(self, rows: str) -> str:
        return self._step("LpNormalization", rows, axis=-1, p=2)

    def head(self, head: Head) -> str:
        """Logits that are linear in the features."""
        terms = []
        if head.joint is not None:
            terms.append(self.product(self.features(JOINT), head.joint))
        if head.backbone is not None:
            terms.append(self.product(self.features(BACKBONE), head.backbone))
        return self.add(terms[0] if len(terms) == 1 else self.add(*terms), head.bias)

    def finish(self, logits: str) -> None:
        """The outputs, f32: `logits`, and their softmax `probabilities`."""
        self._step("Cast", logits, out="logits", to=_FLOAT)
        self._step("Cast", self._step("Softmax", logits, axis=-1), out="probabilities", to=_FLOAT)

    def _once(self, what: str, make: Callable[[], str]) -> str:
        if what not in self._made:
            self._made[what] = make()
        return self._made[what]

    def _constant(self, value: Any) -> str:
        from onnx import numpy_helper

        name = f"head.constant.{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def _step(self, kind: str, *inputs: str, out: str = "", **attributes: Any) -> str:
        from onnx import helper

        name = f"head.{len(self.nodes)}"
        made = out or name
        self.nodes.append(helper.make_node(kind, list(inputs), [made], name=name, **attributes))
        return made


def adapter_steps(adapter: Adapter) -> Steps:
    """What an adapter gives, as steps. Raises ClipkitError for a method that has no such form."""
    steps = Steps(adapter.task_)
    head = _linear(adapter)
    logits = _curved(adapter, steps) if head is None else steps.head(head)
    steps.finish(logits)
    return steps


def zero_shot_steps(task: Task) -> Steps:
    """What a model by itself says of the task's classes, as steps."""
    steps = Steps(task)
    steps.finish(steps.zero_shot())
    return steps


def write(image_graph: Path, steps: Steps, out: Path) -> None:
    """Put steps behind an image graph with the outputs `joint` and perhaps `backbone`, leave out all of it that they
    don't need, and write that to OUT: `pixels` to `probabilities` and `logits`, f32 [n, C] each.

    Raises ClipkitError where they need features that the graph doesn't give.
    """
    import onnx
    from onnx import TensorProto, helper

    model = onnx.load(str(image_graph))
    graph = model.graph
    given = {value.name for value in graph.output}
    if any(name == BACKBONE for node in steps.nodes for name in node.input) and BACKBONE not in given:
        raise ClipkitError("the head works on backbone features, and the image tower has none")
    for node in graph.node:  # lite has logits and probabilities inside, too
        for names in (node.input, node.output):
            names[:] = [f"image.{name}" if name in OUTPUTS else name for name in names]
    graph.node.extend(steps.nodes)
    graph.initializer.extend(steps.constants)
    batch = graph.input[0].type.tensor_type.shape.dim[0]
    rows: Any = batch.dim_param or batch.dim_value
    shape = [rows, len(steps.task.classes)]
    del graph.output[:]
    graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in OUTPUTS)
    _prune(graph)
    onnx.checker.check_model(model)
    files.save(model, out)


def _linear(adapter: Adapter) -> Head | None:
    if adapter.changes_weights():  # its answer is another model, and that one's zero-shot logits
        plain = adapter.zero_shot_head()
        assert plain.joint is not None
        share = adapter.blend / adapter.temperature + 1 - adapter.blend
        return Head(share * plain.joint, None, share * plain.bias)
    return adapter.fold()


def _curved(adapter: Adapter, steps: Steps) -> str:
    """As `Adapter.logits` has it."""
    before, blend = steps.zero_shot, adapter.blend
    if not blend:
        return before()
    own = adapter.network(steps)
    if own is None:
        raise ClipkitError(
            f"{adapter.name} is not linear in the features, and doesn't say what else it would be in a network",
            "linear methods ship as heads, such as gda, ridge, linear and prototypes",
        )
    own = steps.times(own, blend / adapter.temperature)
    return own if blend == 1 else steps.add(own, steps.times(before(), 1 - blend))


def _prune(graph: onnx.GraphProto) -> None:
    """Leave only what the outputs hang on. Nodes are in order, as ONNX wants them."""
    needed = {value.name for value in graph.output}
    kept = []
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            kept.append(node)
            needed.update(_read(node))
    del graph.node[:]
    graph.node.extend(kept[::-1])
    for values in (graph.initializer, graph.value_info):
        used = [value for value in values if value.name in needed]
        del values[:]
        values.extend(used)


def _read(node: onnx.NodeProto) -> Iterator[str]:
    """The names that a node takes, its branches' among them."""
    yield from node.input
    for attribute in node.attribute:
        for inner in attribute.g.node:
            yield from _read(inner)
