"""Adapters in files: a folder with adapter.json, which says all about one, and adapter.safetensors, which holds it.

Nothing in it is code, and nothing is unpickled.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np

from clipkit import __version__
from clipkit.errors import ClipkitError, UsageError
from clipkit.features.store import describe_identity
from clipkit.methods.adapters.base import Adapter
from clipkit.methods.adapters.data import Space, Task
from clipkit.models.base import Identity
from clipkit.models.names import again
from clipkit.stream.folders import aside, recover, replace
from clipkit.stream.sink import part_of

FORMAT: Final = 1
KIND: Final = "adapter"
MANIFEST: Final = "adapter.json"
TENSORS: Final = "adapter.safetensors"
_STATE: Final = "state."
_MAKE: Final = "make one with: clipkit train-adapter --method gda photos/ -o DIR"


class Model(msgspec.Struct, frozen=True):
    """Which model an adapter is for."""

    name: str
    digest: str


class _Head(msgspec.Struct, frozen=True):
    format: int
    kind: str


class _Manifest(msgspec.Struct, frozen=True):
    """What adapter.json must say; it says more."""

    method: str
    params: dict[str, Any]
    chosen: dict[str, Any]
    blend: float
    classes: list[str]
    prompts: list[list[str]]
    scale: float
    bias: float | None
    space: Space
    seed: int
    model: Model
    temperature: float = 1.0
    templates: list[str] = []


@dataclass(frozen=True)
class Saved:
    """An adapter as it was read. model: which it is for. said: all of adapter.json. digest: of both files."""

    adapter: Adapter
    model: Model
    said: dict[str, Any]
    digest: str

    @property
    def via(self) -> str:
        """Who made a `pred`: method, adapter and model."""
        return f"{self.adapter.name}/{self.digest}/{self.model.name}@{self.model.digest}"

    def require(self, identity: Identity) -> None:
        """Raise ClipkitError unless it was made for this model: the same weights, preprocessing and activation."""
        if identity.digest != self.model.digest:
            made = f"{self.model.name}@{self.model.digest}"
            hint = f"leave --model out, or give {self.model.name}"
            if again(self.model.name) != self.model.name:
                hint = "give that model's folder with --model"
            raise ClipkitError(f"the adapter was made for {made}, and this is {identity}", hint)


def save(folder: str | Path, adapter: Adapter, identity: Identity, said: Mapping[str, Any]) -> None:
    """Write a fitted adapter; FOLDER appears when it is whole, and replaces an adapter that was there.

    said: JSON, what else adapter.json says (shots, what was tuned on what, report).
    Raises UsageError where FOLDER is something else.
    """
    from safetensors.numpy import save as packed

    target = Path(os.path.realpath(folder))
    check_target(target)
    task = adapter.task_
    described = {
        "format": FORMAT,
        "kind": KIND,
        "clipkit": __version__,
        "method": adapter.name,
        "params": adapter.params,
        "chosen": adapter.chosen_,
        "blend": adapter.blend,
        "temperature": adapter.temperature,
        "classes": list(task.classes),
        "prompts": [list(prompts) for prompts in task.prompts],
        "scale": task.scale,
        "bias": task.bias,
        "space": task.space,
        "seed": task.seed,
        "model": describe_identity(identity),
        **said,
    }
    fresh = part_of(target)
    recover(target)
    if fresh.exists():
        shutil.rmtree(fresh)  # of a run that was killed
    fresh.mkdir()
    try:
        text = json.dumps(described, ensure_ascii=False, indent=2, allow_nan=False)
        (fresh / MANIFEST).write_text(text + "\n", encoding="utf-8")
        tensors = {"text": task.text} | {_STATE + name: value for name, value in adapter.state_.items()}
        data = packed({name: np.ascontiguousarray(value) for name, value in tensors.items()})
        (fresh / TENSORS).write_bytes(data)  # its own way to write a file lets nobody else read it
        replace(fresh, target)
    except BaseException:
        shutil.rmtree(fresh, ignore_errors=True)
        recover(target)
        raise


def load(folder: str | Path) -> Saved:
    """Read what `save` wrote. Raises ClipkitError for anything else, also what was damaged."""
    from clipkit.methods import ADAPTERS

    path = Path(folder)
    data = _manifest(path)
    try:
        said = msgspec.json.decode(data)
        head = msgspec.json.decode(data, type=_Manifest)
        cls: type[Adapter] = ADAPTERS.get(head.method)
        unknown = head.params.keys() - set(cls().params)
        if unknown:
            raise ValueError(f"{head.method} has no parameter {min(unknown)}")
        adapter, chosen = cls(**cls.checked(head.params)), cls.checked(head.chosen)
        if not 0 <= head.blend <= 1:
            raise ValueError(f"blend is 0 to 1, not {head.blend:g}")
        if not 0 < head.temperature < float("inf"):
            raise ValueError(f"temperature is above 0, not {head.temperature:g}")
        tensors, raw = _tensors(path)
        text = tensors.pop("text")
        if text.ndim != 2 or len(text) != len(head.classes) or len(set(head.classes)) != len(head.classes):
            raise ValueError(f"{len(text)} rows of text features for {len(head.classes)} classes")
        if head.prompts and not (len(head.prompts) == len(head.classes) and all(head.prompts)):
            raise ValueError(f"prompts of {sum(map(bool, head.prompts))} of {len(head.classes)} classes")
        wrong = next((name for name, value in tensors.items() if not np.isfinite(value).all()), None)
        if wrong or not np.isfinite(text).all():
            raise ValueError("it holds what is not finite")
    except UsageError:
        raise
    except (ValueError, KeyError, TypeError, OSError, RecursionError) as error:
        raise ClipkitError(f"{path} is damaged: {error}", _MAKE) from None
    prompts = tuple(tuple(texts) for texts in head.prompts)
    adapter.task_ = Task(tuple(head.classes), text, head.scale, head.bias, head.space, prompts, None, head.seed)
    adapter.state_ = {name.removeprefix(_STATE): value for name, value in tensors.items()}
    adapter.chosen_, adapter.facts_ = chosen, {}
    adapter.blend, adapter.temperature = head.blend, head.temperature
    return Saved(adapter, head.model, said, _digest(data, raw))


def check_target(folder: str | Path) -> None:
    """Raise UsageError before any work if an adapter cannot be made at FOLDER, or something else is in its way."""
    target = Path(os.path.realpath(folder))
    if not target.parent.is_dir():
        raise UsageError(f"-o {folder}: there is no folder {target.parent}", f"make it first: mkdir -p {target.parent}")
    for path in (target, part_of(target), aside(target)):
        if path.exists() and not (path / MANIFEST).is_file() and not (path.is_dir() and not any(path.iterdir())):
            raise UsageError(f"{path} exists and is not an adapter", "name a new folder with -o")
        foreign = sorted({file.name for file in path.iterdir()} - {MANIFEST, TENSORS}) if path.is_dir() else []
        if foreign:
            hint = "its folder is replaced as a whole: move that away, or name a new folder with -o"
            raise UsageError(f"{path / foreign[0]} is no part of an adapter", hint)


def _manifest(path: Path) -> bytes:
    """adapter.json, once it is known to be one that this clipkit reads."""
    if not path.exists():
        raise ClipkitError(f"{path}: there is no such folder", _close_matches(path) or _MAKE)
    file = path / MANIFEST
    if not file.is_file():
        raise ClipkitError(f"{path} is no adapter: it has no {MANIFEST}", _MAKE)
    data = file.read_bytes()
    try:
        head = msgspec.json.decode(data, type=_Head)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ClipkitError(f"{file} is damaged: {error}", _MAKE) from None
    if head.kind != KIND:
        raise ClipkitError(f"{path} is no adapter", _MAKE)
    if head.format > FORMAT:
        raise ClipkitError(f"{path} was written by a newer clipkit (format {head.format})", "upgrade clipkit")
    return data


def _close_matches(path: Path) -> str | None:
    """Adapters beside it whose names are like it, as a hint."""
    import difflib

    beside = [manifest.parent.name for manifest in path.parent.glob(f"*/{MANIFEST}")]
    close = difflib.get_close_matches(path.name, beside)
    return f"did you mean {' or '.join(str(path.with_name(name)) for name in close)}?" if close else None


def _tensors(path: Path) -> tuple[dict[str, np.ndarray], bytes]:
    from safetensors import SafetensorError
    from safetensors.numpy import load as load_tensors

    raw = (path / TENSORS).read_bytes()
    try:
        return load_tensors(raw), raw
    except SafetensorError as error:
        raise ValueError(f"{TENSORS}: {error}") from None


def _digest(*parts: bytes) -> str:
    """8 hex digits that stand for an adapter."""
    import hashlib

    digest = hashlib.blake2b(digest_size=4)
    for part in parts:
        digest.update(len(part).to_bytes(8, "little") + part)
    return digest.hexdigest()
