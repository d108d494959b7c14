"""A linear head on unit image features, from a file: LAION's aesthetic heads are of this kind."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from clipkit.errors import ClipkitError, UsageError
from clipkit.methods.scorers.base import Sample, Scorer

if TYPE_CHECKING:
    from clipkit.features.embedder import Embedder

_HOW = "docs/scores.md shows how to write one"


class Head(Scorer):
    """`scores.NAME`: weight . feature + bias, of the image's unit features, in float64.

    options: head, a .safetensors file with `weight` [d] or [1, d] and, if it has one, `bias` [] or [1]. Its metadata
    says for which `model` it was made (`NAME@digest`, or the digest), and may have a `name` for the score; else the
    file's is taken. Features of another model are refused. Only linear heads: of layers on layers it takes none.
    """

    name: ClassVar[str] = "head"
    takes: ClassVar[tuple[str, ...]] = ("head",)
    views: ClassVar[tuple[str, ...]] = ("plain",)

    def __init__(self, options: Mapping[str, Any]) -> None:
        super().__init__(options)
        if not options.get("head"):
            raise UsageError("head: which file?", "name it with --head FILE.safetensors")
        self._path = Path(options["head"])
        self._weight, self._bias, metadata = _read(self._path)
        self._model = metadata["model"]
        self._digest = hashlib.sha256(self._path.read_bytes()).hexdigest()[:8]
        name = metadata.get("name") or self._path.stem
        if not re.fullmatch(r"[^\W\d][\w-]*", name):
            raise ClipkitError(f"{self._path}: {name!r} cannot be the name of a score", "give it the metadata `name`")
        self.outputs = (f"scores.{name}",)

    @property
    def identity(self) -> str:
        return f"{self.name}@{self._digest}"

    def setup(self, embedder: Embedder | None) -> None:
        assert embedder is not None
        identity = embedder.encoder.identity
        if self._model.rpartition("@")[2] != identity.digest:
            raise ClipkitError(
                f"the head in {self._path} is for {self._model}, not for {identity}", "name its model with --model"
            )
        if len(self._weight) != identity.dim:
            raise ClipkitError(f"{self._path}: {len(self._weight)} weights, for features of {identity.dim}", _HOW)

    def score(self, sample: Sample, looked: Any) -> dict[str, Any]:
        feature = sample.features["plain"].astype(np.float64)
        return {self.outputs[0]: float(np.einsum("d,d->", self._weight, feature)) + self._bias}


def _read(path: Path) -> tuple[np.ndarray, float, dict[str, str]]:
    """Weight f64 [d], bias and metadata. Raises ClipkitError for a file that holds something else."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np") as file:
            metadata = file.metadata() or {}
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118 (no mapping)
            if shapes.keys() - {"bias"} != {"weight"} or not _linear(shapes):
                held = ", ".join(f"{name} {list(shape)}" for name, shape in sorted(shapes.items())) or "nothing"
                raise ClipkitError(f"{path} holds {held}; expected `weight` [d] or [1, d], and `bias` []", _HOW)
            kinds = {file.get_slice(name).get_dtype() for name in shapes}
            if not kinds <= {"F64", "F32", "F16"}:  # whether numpy knows bfloat16 hangs on what else is installed
                raise ClipkitError(f"{path} holds {', '.join(sorted(kinds))}", "save its weights as float32")
            weight = file.get_tensor("weight").astype(np.float64).reshape(-1)
            bias = float(file.get_tensor("bias").reshape(())) if "bias" in shapes else 0.0
    except FileNotFoundError:
        raise UsageError(f"--head: no file {path}") from None
    except (SafetensorError, OSError, TypeError) as error:
        raise ClipkitError(f"cannot read {path} as safetensors: {error}", f"a .pth? {_HOW}") from None
    if not np.isfinite(weight).all() or not np.isfinite(bias):
        raise ClipkitError(f"{path} holds weights that are not finite")
    if not metadata.get("model"):
        raise ClipkitError(f"{path} doesn't say which model's features it is for", f"it lacks metadata; {_HOW}")
    return weight, bias, metadata


def _linear(shapes: Mapping[str, tuple[int, ...]]) -> bool:
    weight, bias = shapes["weight"], shapes.get("bias", ())
    return (len(weight) == 1 or (len(weight) == 2 and weight[0] == 1)) and bias in ((), (1,))
