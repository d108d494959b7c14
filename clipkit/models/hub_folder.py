"""An open_clip model as a folder in the hub's layout: what open_clip itself loads, and `--model ./FOLDER/` too."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkdtemp
from typing import TYPE_CHECKING, Any

from clipkit.errors import FULL, ClipkitError, UsageError, is_full
from clipkit.models import listing
from clipkit.models.base import Preprocess

if TYPE_CHECKING:
    import torch


def check_target(folder: str | Path) -> None:
    """Raise UsageError before any work if a model cannot be written to FOLDER: it must be new, or empty."""
    target = Path(os.path.realpath(folder))
    if str(folder) == "-":
        raise UsageError("-o names a folder, and - is standard output", "name a new folder")
    if not target.parent.is_dir():
        raise UsageError(f"{folder}: there is no folder {target.parent}", f"make it first: mkdir -p {target.parent}")
    if target.exists() and not (target.is_dir() and not any(target.iterdir())):
        raise UsageError(f"{folder} exists: a model is not written over what is there", "name a new folder")


@contextmanager
def writing(target: Path) -> Iterator[None]:
    """For what writes a model: where it cannot be written, a ClipkitError says why."""
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, SafetensorError) as error:
        said = FULL if is_full(error) else getattr(error, "strerror", None) or error
        raise ClipkitError(f"{target.name} cannot be written: {said}") from None


def write(
    folder: str | Path,
    state: Mapping[str, torch.Tensor] | Iterable[tuple[str, torch.Tensor]],
    config: Mapping[str, Any],
    preprocess: Preprocess,
    add: Callable[[Path], None],
) -> None:
    """Write a model; FOLDER appears when it is whole and on the disk.

    state: the weights by open_clip's names, or pairs of name and tensor, of which no more than the copy that is written
    is held. config: open_clip's `model_cfg`. add: puts the tokenizer's files, where the model has any, and what else
    belongs to it into the folder that is being made, after the weights. Raises UsageError where FOLDER holds something.
    """
    from safetensors.torch import save_file

    check_target(folder)
    target = Path(os.path.realpath(folder))
    fresh = Path(mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        described = {"model_cfg": dict(config), "preprocess_cfg": _described(preprocess)}
        (fresh / listing.HUB_CONFIG).write_text(json.dumps(described, indent=2) + "\n", encoding="utf-8")
        pairs = state.items() if isinstance(state, Mapping) else state
        tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in pairs}
        save_file(tensors, fresh / listing.hub_names()[0], metadata={"format": "pt"})
        (fresh / listing.hub_names()[0]).chmod(0o666 & ~umask())  # it made it for its owner alone
        del tensors
        add(fresh)
        for path in fresh.iterdir():
            with open(path, "rb") as file:
                os.fsync(file.fileno())
        fresh.chmod(0o777 & ~umask())  # mkdtemp makes it for its owner alone
        os.rename(fresh, target)  # onto an empty folder too; fails if somebody filled it meanwhile
    except BaseException:
        shutil.rmtree(fresh, ignore_errors=True)
        raise


def _described(preprocess: Preprocess) -> dict[str, Any]:
    """open_clip's `preprocess_cfg`; the size is the image tower's."""
    return {
        "mean": list(preprocess.mean),
        "std": list(preprocess.std),
        "interpolation": preprocess.interpolation,
        "resize_mode": preprocess.resize_mode,
        "fill_color": preprocess.fill,
    }


def umask() -> int:
    """The process's umask, which can only be read by setting it."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
