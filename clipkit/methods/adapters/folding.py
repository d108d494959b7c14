"""An adapter without its method: a linear head, or the model with the adapter's weights in it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from clipkit.errors import ClipkitError, UsageError
from clipkit.methods.adapters import files
from clipkit.methods.adapters.base import Head
from clipkit.methods.adapters.files import Saved
from clipkit.methods.adapters.head_file import save_head
from clipkit.stream.sink import check_writable


def read_files(adapter: str) -> list[str]:
    """The files of an adapter: no output may take their place."""
    return [str(Path(adapter) / name) for name in (files.MANIFEST, files.TENSORS)]


@contextmanager
def model_of(saved: Saved, named: str | None) -> Iterator[str]:
    """The name of the model to load: `named`, else what the adapter was made for.

    Where the adapter's cannot be found by its name, as one in a folder, a ClipkitError says so.
    """
    try:
        yield named or saved.model.name
    except UsageError as error:
        if named:
            raise
        made = f"{saved.model.name}@{saved.model.digest}"
        hint = "give it with --model: no folder is remembered of a model that lies in one"
        raise ClipkitError(f"the adapter was made for {made}: {error.message}", hint) from None


@contextmanager
def trusted(folder: str) -> Iterator[None]:
    """For what is done with arrays from a file: where they don't fit each other, a ClipkitError says so."""
    why: object
    try:
        with np.errstate(all="ignore"):
            yield
        return
    except KeyError as error:
        why = f"it lacks {error}"
    except (ValueError, LookupError, TypeError) as error:
        why = error
    raise ClipkitError(f"{folder} is damaged: {why}", "make it again with clipkit train-adapter")


def fold(folder: str, out: str, named: str | None = None) -> dict[str, Any]:
    """Write the adapter in FOLDER as a head (a file) or, where it changes weights, as a model (a folder).

    named: the model, where it cannot be found by the name that the adapter has for it. Returns what was made, as JSON.
    Raises ClipkitError for one that can be neither, UsageError for an OUT that cannot be.
    """
    saved = files.load(folder)
    if saved.adapter.changes_weights():
        return _merge(saved, folder, out, named)
    head = _head(saved, folder)
    if head is None:
        raise ClipkitError(
            f"{saved.adapter.name} is not linear in the features: no head gives its logits",
            f"use the adapter itself: clipkit apply {folder} SOURCE",
        )
    if out.endswith("/"):
        raise UsageError(f"-o {out}: a head is one file", "name it, for example head.safetensors")
    check_writable(out, "-o")
    if os.path.realpath(out) in map(os.path.realpath, read_files(folder)):
        raise UsageError(f"-o {out} is a file of the adapter", "give the head a file of its own")
    classes = saved.adapter.task_.classes
    save_head(out, head, classes, saved.said["model"], saved.via)
    spaces = {"joint": head.joint, "backbone": head.backbone}
    dims = {name: part.shape[1] for name, part in spaces.items() if part is not None}
    model = f"{saved.model.name}@{saved.model.digest}"
    return {"kind": "head", "out": out, "method": saved.adapter.name, "classes": len(classes), **dims, "model": model}


def _head(saved: Saved, folder: str) -> Head | None:
    """Raises ClipkitError where its arrays don't fit each other or its model."""
    with trusted(folder):
        head = saved.adapter.fold()
        if head is None:
            return None
        parts = [part for part in (head.joint, head.backbone, head.bias) if part is not None]
        if {len(part) for part in parts} != {len(saved.adapter.task_.classes)}:
            raise ValueError("it has not one row for each class")
        if head.joint is not None and head.joint.shape[1] != saved.said["model"]["dim"]:
            raise ValueError(f"its rows are of {head.joint.shape[1]} features")
        if not all(np.isfinite(part).all() for part in parts):
            raise ValueError("its weights are not finite")
        return head


def _merge(saved: Saved, folder: str, out: str, named: str | None) -> dict[str, Any]:
    """Write the changed model in the hub's layout."""
    from clipkit.models import hub_folder
    from clipkit.models.load import load

    if out.endswith(".safetensors"):
        said = f"-o {out}: {saved.adapter.name} changes the model, and a model is a folder"
        raise UsageError(said, "for example: -o merged/")
    hub_folder.check_target(out)
    with model_of(saved, named) as name:
        encoder: Any = load(name, device="cpu", precision="f32")
    saved.require(encoder.identity)
    with trusted(folder):
        merged: Any = saved.adapter.attach(encoder)
    merged.save_model(out)
    return {"kind": "model", "out": out, "method": saved.adapter.name, "model": str(merged.identity)}
