"""ONNX files: their opset, their weights beside or inside, and whether their rows stand alone. Without torch."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from clipkit.errors import UsageError

if TYPE_CHECKING:
    import onnx

    from clipkit.exporting.base import Tower

ONE_FILE = 2**31 - 2**24  # protobuf reads no file of 2 GiB; what is no weight needs some room
_SMALL = 1024  # bytes: constants of graphs stay in them


def opset_of(path: Path) -> int:
    """The opset that a graph has, whatever was asked for."""
    import onnx

    graph = onnx.load(str(path), load_external_data=False)
    return next(int(entry.version) for entry in graph.opset_import if entry.domain in ("", "ai.onnx"))


def require_opset(path: Path, asked: int | None) -> int:
    """The graph's opset. Raises UsageError where another was asked for: converters keep their own silently."""
    found = opset_of(path)
    if asked and found != asked:
        raise UsageError(
            f"opset {asked} was asked for, and {found} came out", f"ask for --opset {found}, or leave it out"
        )
    return found


def data_file(path: Path) -> Path:
    """Where the weights lie that are not in the graph's own file."""
    return path.with_name(f"{path.name}.data")


def ship(path: Path, target: Path, *, external: bool) -> None:
    """Put a graph where it ships: in one file, or with its weights in a second one beside it.

    external: two files are wished; what one file cannot hold has two anyway.
    """
    import onnx

    if not external and not data_file(path).exists():
        shutil.copyfile(path, target)
        return
    save(onnx.load(str(path)), target, external=external)


def save(model: onnx.ModelProto, target: Path, *, external: bool = False) -> None:
    """Write a graph; its weights go into TARGET.data if that is wished, or if one file cannot hold them.

    The model's own weights are moved out of it then.
    """
    import onnx

    if not external and weight_bytes(model) < ONE_FILE:
        onnx.save(model, str(target))
        return
    onnx.save(
        model,
        str(target),
        save_as_external_data=True,
        all_tensors_to_one_file=True,
        location=data_file(target).name,
        size_threshold=_SMALL,
    )


def weight_bytes(model: onnx.ModelProto) -> int:
    """Bytes of all weights of a graph that was loaded with them."""
    return sum(tensor.ByteSize() for tensor in model.graph.initializer)


def noise(tower: Tower, size: tuple[int, int], context_length: int, rows: int, seed: int = 0) -> np.ndarray:
    """An input of a tower: pixels f32 [rows, 3, *size], or token ids int64 [rows, context_length], filled up with 0."""
    random = np.random.default_rng(seed)
    if tower == "image":
        return random.standard_normal((rows, 3, *size), dtype=np.float32)
    lengths = random.integers(1, context_length, (rows, 1), endpoint=True)
    ids: np.ndarray = random.integers(1, 400, (rows, context_length)) * (np.arange(context_length) < lengths)
    return ids


def rows_stand_alone(path: Path, rows: np.ndarray) -> bool:
    """Whether each row comes out of a batch as it does alone, bit for bit, on this processor.

    Another one has other kernels: a graph that fails here must run row by row everywhere, one that passes was seen
    here (f32 passes on x86 with AVX2 and with AVX-512). rows: of the graph's one input, [n, ...], n > 1.
    """
    from clipkit.models.sessions import open_session

    session = open_session(path, 1)
    name = session.get_inputs()[0].name
    together: list[Any] = session.run(None, {name: rows})
    for row in range(len(rows)):
        alone = session.run(None, {name: rows[row : row + 1]})
        if any(not np.array_equal(one[0], all_[row]) for one, all_ in zip(alone, together, strict=True)):
            return False
    return True
