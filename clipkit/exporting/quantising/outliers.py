"""What stands in the way of 8-bit activations: the few values of a layer that are far larger than the rest.

Bondarenko, Nagel, Blankevoort, "Quantizable Transformers", 2023, tell them by the greatest |x|, by the kurtosis, and by
what lies beyond 6 standard deviations: one range for a whole tensor must hold them, and its 255 steps grow with it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx

from clipkit.exporting.files import save
from clipkit.exporting.quantising import weights
from clipkit.exporting.quantising.layers import Layer, layers, load, name_of
from clipkit.models.sessions import open_session

SIGMAS: Final = 6.0
FEW_STEPS: Final = 8.0  # 8-bit steps to a standard deviation, below which rounding alone is noise of 1 part in 28

Rows = Callable[[], Iterable[np.ndarray]]


@dataclass
class Moments:
    """Of one tensor, over all samples. Two passes: `see` all of it, then `look` at all of it again."""

    axis: int  # of the channels
    count: int = 0
    low: float = np.inf
    high: float = -np.inf
    total: float = 0.0
    squares: float = 0.0
    fourth: float = 0.0
    beyond: int = 0
    channels: set[int] = field(default_factory=set)

    def see(self, values: np.ndarray) -> None:
        """First pass: range, mean and deviation."""
        exact = values.astype(np.float64).ravel()
        self.count += exact.size
        self.low, self.high = min(self.low, float(exact.min())), max(self.high, float(exact.max()))
        self.total += float(exact.sum())
        self.squares += float(exact @ exact)

    @property
    def mean(self) -> float:
        return self.total / self.count

    @property
    def std(self) -> float:
        return float(np.sqrt(max(0.0, self.squares / self.count - self.mean**2)))

    def look(self, values: np.ndarray) -> None:
        """Second pass: the fourth moment, and what lies beyond 6 standard deviations of the mean."""
        away = values.astype(np.float64) - self.mean
        squares = np.square(away).ravel()
        self.fourth += float(squares @ squares)
        far = np.abs(away) > SIGMAS * self.std
        self.beyond += int(far.sum())
        self.channels.update(np.nonzero(far)[self.axis].tolist())

    def row(self) -> dict[str, Any]:
        """The figures, as JSON. steps: of 8 bits over the tensor's whole range, to a standard deviation; the more the
        better."""
        std, span = self.std, max(self.high, 0.0) - min(self.low, 0.0)
        return {
            "max": _short(max(abs(self.low), abs(self.high))),
            "mean": _short(self.mean),
            "std": _short(std),
            "kurtosis": _short(self.fourth / self.count / std**4) if std else None,
            "steps": _short(255 * std / span) if span else None,
            "outliers": self.beyond,
            "share": _short(self.beyond / self.count),
            "channels": len(self.channels),
        }


def report(path: Path, tower: str, rows: Rows, scratch: Path) -> list[dict[str, Any]]:
    """A row for each layer of an f32 graph, those that 8-bit activations hurt most first, the embeddings last.

    rows: gives the samples, [n, ...], and is called twice. A row has layer (its module), tower, kind (linear,
    convolution, residual, embedding), the figures of `Moments.row` of what comes into the layer (of a residual sum: of
    itself; kurtosis is 3 for a normal distribution) and weights_sqnr, the decibels by which weights stand above the
    error of 8 bits.
    """
    model = load(path)
    found: list[tuple[str, dict[str, Any]]] = []
    moments: dict[str, Moments] = {}
    for layer in layers(model):
        about = {"layer": layer.name, "tower": tower, "kind": layer.kind, "weights_sqnr": sqnr(layer)}
        found.append((layer.given, about))
        if layer.kind != "embedding":  # its activations are ids
            moments[layer.given] = Moments(1 if layer.kind == "convolution" else -1)
    for node in _residuals(model):
        found.append((node.output[0], {"layer": name_of(node), "tower": tower, "kind": "residual"}))
        moments.setdefault(node.output[0], Moments(-1))
    run = _Inner(model, list(moments), scratch / f"{tower}.inner.onnx")
    for name, values in run(rows()):
        moments[name].see(values)
    for name, values in run(rows()):
        moments[name].look(values)
    made = [about | (moments[name].row() if name in moments else {}) for name, about in found]
    return sorted(made, key=worst_first)


def worst_first(row: dict[str, Any]) -> float:
    """Sorts rows: few steps first, rows without any last."""
    steps = row.get("steps")
    return np.inf if steps is None else float(steps)


def sqnr(layer: Layer) -> float | None:
    """Signal to quantisation noise of 8-bit weights, in dB; None where nothing is lost."""
    weight = layer.weight.astype(np.float64)
    noise = float(np.square(weight - weights.restored(layer)).sum())
    return _short(10 * np.log10(float(np.square(weight).sum()) / noise)) if noise else None


def _residuals(model: onnx.ModelProto) -> Iterator[Any]:
    """Sums of two activations that a norm or another such sum reads: the outputs of a transformer's layers."""
    constant = {tensor.name for tensor in model.graph.initializer}
    sums = {
        node.output[0]: node
        for node in model.graph.node
        if node.op_type == "Add" and not any(name in constant for name in node.input)
    }
    readers = [node for node in model.graph.node if node.op_type == "LayerNormalization" or node.output[0] in sums]
    read = {name for node in readers for name in node.input}
    return (node for name, node in sums.items() if name in read)


class _Inner:
    """A graph that gives its inner tensors, sample by sample: all of a batch's at once would be gigabytes."""

    def __init__(self, model: onnx.ModelProto, wanted: list[str], path: Path) -> None:
        self._given = model.graph.input[0].name
        self._wanted = wanted
        self._inner = [name for name in wanted if name != self._given]
        del model.graph.output[:]
        model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in self._inner)
        save(model, path)
        self._session = open_session(path, 1)

    def __call__(self, rows: Iterable[np.ndarray]) -> Iterator[tuple[str, np.ndarray]]:
        for batch in rows:
            for row in range(len(batch)):
                one = batch[row : row + 1]
                yield from zip(self._inner, self._session.run(self._inner, {self._given: one}), strict=True)
                if self._given in self._wanted:
                    yield self._given, one


def _short(value: float) -> float:
    """Six digits: another processor's rounding doesn't show in a file."""
    return float(f"{value:.6g}")
