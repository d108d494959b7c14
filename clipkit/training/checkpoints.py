"""Checkpoints: the model as open_clip loads it, and beside it all that the training of it remembers.

RUN/checkpoints/step-00000500/ is a folder that `--model` takes, with two files more: training.safetensors (tensors by
name; nothing is pickled) and training.json. It appears when it is whole and on the disk.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from clipkit.errors import ClipkitError
from clipkit.stream.record import encode_json

if TYPE_CHECKING:
    import torch

    from clipkit.models.open_clip import OpenClipEncoder

FORMAT: Final = 1
TENSORS: Final = "training.safetensors"
DESCRIBED: Final = "training.json"
_NAME: Final = re.compile(r"step-([0-9]{8,18})")
MOST_FAILED: Final = 10_000  # ids that a run remembers


class Origin(msgspec.Struct, frozen=True):
    """What decides every step of a run; one that goes on must have the same.

    settings: `Settings`, as JSON. data: the digest of the examples. model: that of the model it began with.
    processes: how many trained together.
    """

    settings: dict[str, Any]
    data: str
    model: str
    processes: int

    def differs(self, other: Origin) -> list[str]:
        """What is different in `other`, in words."""
        names = dict.fromkeys([*self.settings, *other.settings])
        pairs = [(name, self.settings.get(name), other.settings.get(name)) for name in names]
        found = [f"{name} is {now}, and was {before}" for name, before, now in pairs if before != now]
        if self.processes != other.processes:
            found.append(f"{other.processes} processes train, and {self.processes} did")
        if self.model != other.model:
            found.append("the model to begin with is another one")
        if self.data != other.data:
            found.append("the pairs are other ones")
        return found


class Best(msgspec.Struct, frozen=True):
    """The best evaluation of a run: after which step, the headline figure, its value; and all of them."""

    step: int
    figure: str
    value: float
    figures: dict[str, int | float]


class Reached(msgspec.Struct, frozen=True):
    """Where a run is. positions: of each process, where its next batch begins (`Batch.after`). failed: id -> kind of
    error, of pictures that could not be read, MOST_FAILED at most. best: the evaluation with the best headline figure
    so far. seconds: of training, all its parts together.
    """

    step: int
    positions: list[int]
    failed: dict[str, str] = {}
    best: Best | None = None
    seconds: float = 0.0


class Described(msgspec.Struct, frozen=True):
    """training.json."""

    format: int
    origin: Origin
    reached: Reached


def name_of(step: int) -> str:
    return f"step-{step:08}"


def write(
    folder: Path,
    encoder: OpenClipEncoder,
    weights: Mapping[str, torch.Tensor],
    state: Mapping[str, torch.Tensor],
    described: Described,
    *,
    keep: int,
) -> None:
    """Write a checkpoint into FOLDER, then remove all but the newest `keep`.

    weights: the model, by open_clip's names. state: what else its training remembers. Raises ClipkitError where the
    disk is full; what was there before is still there then.
    """

    def also(fresh: Path) -> None:
        from safetensors.torch import save_file

        from clipkit.models.hub_folder import umask

        held = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
        save_file(held, fresh / TENSORS)
        (fresh / TENSORS).chmod(0o666 & ~umask())  # it made it for its owner alone
        (fresh / DESCRIBED).write_bytes(encode_json(msgspec.to_builtins(described)) + b"\n")

    target = folder / name_of(described.reached.step)
    if not target.exists():  # of a stop right after it: the same bytes
        save(target, lambda: encoder.save_state(target, weights, also))
    _remove_old(folder, keep)


def save(target: Path, write_it: Any) -> None:
    """Call what writes a folder; a full disk is said as such. Raises ClipkitError."""
    from clipkit.models.hub_folder import writing

    with writing(target):
        write_it()
        _synced(target.parent)


def newest(folder: Path) -> Path | None:
    """The checkpoint of the last step, if there is one."""
    found = _in_order(folder)
    return found[-1] if found else None


def described(path: Path) -> Described:
    """What a checkpoint says of itself. Raises ClipkitError where it is none of ours."""
    try:
        found = msgspec.json.decode((path / DESCRIBED).read_bytes(), type=Described)
    except (OSError, msgspec.DecodeError) as error:
        raise _damaged(path, f"{DESCRIBED}: {error}") from None
    if found.format != FORMAT:
        raise ClipkitError(f"{path} is of format {found.format}, and this clipkit reads {FORMAT}")
    positions = found.reached.positions
    there = len(positions) == found.origin.processes and all(0 <= one < 1 << 62 for one in positions)
    if found.reached.step != int(path.name.rpartition("-")[2]) or not there:
        raise _damaged(path, f"{DESCRIBED}: the steps or positions in it cannot be")
    return found


def tensors(path: Path) -> dict[str, torch.Tensor]:
    """What a checkpoint's training remembers. Raises ClipkitError where the file is damaged."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path / TENSORS)
    except (OSError, SafetensorError) as error:
        raise _damaged(path, f"{TENSORS}: {error}") from None


def _damaged(path: Path, what: str) -> ClipkitError:
    hint = "remove that checkpoint, and --resume goes on from the one before it, if there is one"
    return ClipkitError(f"{path} is no checkpoint that can be gone on from: {what}", hint)


def sweep(folder: Path) -> None:
    """Remove what a run that was killed left half-written, or half-removed."""
    for path in _listed(folder):
        if path.name.startswith(".step-"):
            shutil.rmtree(path, ignore_errors=True)


def _remove_old(folder: Path, keep: int) -> None:
    for path in _in_order(folder)[:-keep]:
        gone = path.with_name(f".{path.name}.gone")  # never half a checkpoint under its name
        os.rename(path, gone)
        shutil.rmtree(gone, ignore_errors=True)


def _in_order(folder: Path) -> list[Path]:
    """The checkpoints, by step. A link to one elsewhere is none: it would be read, and then removed, as one of ours."""
    steps = {int(match[1]): path for path in _listed(folder) if (match := _NAME.fullmatch(path.name))}
    return [steps[step] for step in sorted(steps) if steps[step].name == name_of(step)]


def _listed(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.is_dir() and not path.is_symlink()] if folder.is_dir() else []


def _synced(folder: Path) -> None:
    """Make a rename in a folder last."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
