"""A linear head in a file of its own: all that is left of an adapter whose logits are linear in the features."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec
import numpy as np

from clipkit.errors import ClipkitError
from clipkit.features import tensors as tensors_file
from clipkit.methods.adapters.base import Head
from clipkit.methods.adapters.files import Model

FORMAT: Final = 1
KIND: Final = "head"
_MAKE: Final = "make one with: clipkit fold-adapter ADAPTER -o head.safetensors"


@dataclass(frozen=True)
class SavedHead:
    """head: its logits are the adapter's, the model's scale and the blend in them. classes: in the order of its rows.

    model: of whose unit features it is. via: which adapter it was.
    """

    head: Head
    classes: tuple[str, ...]
    model: Model
    via: str


def save_head(path: str, head: Head, classes: tuple[str, ...], model: Mapping[str, Any], via: str) -> None:
    """Write a safetensors file, under its name when it is whole: `joint` and `backbone` (those that it has), `bias`,
    all f64; in its metadata the classes and the model as JSON, and how logits are made.

    model: an identity as `describe_identity` gives it.
    """
    parts = {"joint": head.joint, "backbone": head.backbone, "bias": head.bias}
    tensors = {name: np.ascontiguousarray(part, np.float64) for name, part in parts.items() if part is not None}
    terms = [f"unit({name} features) @ {name}.T" for name in ("joint", "backbone") if name in tensors]
    formula = f"logits = {' + '.join([*terms, 'bias'])}; unit: each row divided by its length"
    said = {"format": str(FORMAT), "kind": KIND, "via": via, "formula": formula}
    said |= {"classes": _encoded(list(classes)), "model": _encoded(dict(model))}
    tensors_file.write(path, tensors, said)


def load_head(path: str) -> SavedHead:
    """Read what `save_head` wrote. Raises ClipkitError for anything else."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "numpy") as file:
            said: dict[str, str] = file.metadata() or {}
            if said.get("kind") != KIND:
                raise ClipkitError(f"{path} holds no head", _MAKE)
            if int(said["format"]) > FORMAT:
                raise ClipkitError(
                    f"{path} was written by a newer clipkit (format {said['format']})", "upgrade clipkit"
                )
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
        classes = msgspec.json.decode(said["classes"], type=tuple[str, ...])
        model = msgspec.json.decode(said["model"], type=Model)
        return SavedHead(_checked(tensors, len(classes)), classes, model, said["via"])
    except FileNotFoundError:
        raise ClipkitError(f"{path}: there is no such file", _MAKE) from None
    except (SafetensorError, LookupError, ValueError, TypeError, OSError, RecursionError) as error:
        raise ClipkitError(f"{path} is damaged or no head: {error}", _MAKE) from None


def _checked(tensors: Mapping[str, np.ndarray], classes: int) -> Head:
    """Raises ValueError or KeyError where they are not what `save_head` would have written."""
    head = Head(tensors.get("joint"), tensors.get("backbone"), tensors["bias"])
    for name, tensor in tensors.items():
        if tensor.dtype != np.float64 or tensor.ndim != (1 if name == "bias" else 2) or len(tensor) != classes:
            raise ValueError(f"{name} is {tensor.dtype} {list(tensor.shape)}, for {classes} classes")
        if not np.isfinite(tensor).all():
            raise ValueError(f"{name} holds what is not finite")
    return head


def _encoded(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True)
