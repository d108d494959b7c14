"""What is told of a run while it goes on: metrics.jsonl, and TensorBoard or Weights & Biases besides."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, Literal, Protocol

import msgspec

from clipkit.errors import ClipkitError, MissingPackage
from clipkit.stream.record import encode_json

Kind = Literal["jsonl", "tensorboard", "wandb"]
_PACKAGES: Final = {"tensorboard": "tensorboard", "wandb": "wandb"}


def check(kind: Kind) -> None:
    """Raise MissingPackage where a log needs a package that is not there."""
    package = _PACKAGES.get(kind)
    if package and find_spec(package) is None:
        raise MissingPackage(package, f"--log {kind}", f"pip install 'clipkit[{package}]'")


class Board(Protocol):
    """Where numbers are drawn while they come in."""

    def show(self, step: int, numbers: Mapping[str, float]) -> None: ...

    def close(self) -> None: ...


class Metrics:
    """metrics.jsonl: a line for each step, and one for each evaluation after the step's, with `eval`.

    A step's line: step, samples (seen so far), loss and its parts, lr, scale (of the logits), norm (of the gradient),
    samples_per_s (the only number here that another run of the same kind has not).
    """

    def __init__(self, path: Path, done: int) -> None:
        """done: the step to go on from; what was written of later ones is cut off, and a torn line with it."""
        part = path.with_name(path.name + ".part")
        with open(part, "wb") as file:
            file.writelines(line for said, line in _read(path) if 0 < done >= said["step"])
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
        self._file = open(path, "ab")

    def write(self, said: Mapping[str, Any]) -> None:
        """Add a line; a number that is none is null."""
        self._file.write(encode_json({name: _finite(value) for name, value in said.items()}) + b"\n")
        self._file.flush()

    def sync(self) -> None:
        """Make sure that it is on the disk: a checkpoint stands on it."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()


def read(path: Path) -> Iterator[dict[str, Any]]:
    """The lines of metrics.jsonl; a torn one ends it."""
    return (said for said, _ in _read(path))


def _read(path: Path) -> Iterator[tuple[dict[str, Any], bytes]]:
    if not path.is_file():
        return
    with open(path, "rb") as file:
        for line in file:
            try:
                said = msgspec.json.decode(line, type=dict[str, Any])
            except msgspec.DecodeError:
                return
            if not line.endswith(b"\n") or not isinstance(said.get("step"), int):
                return
            yield said, line


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


class TensorBoard:
    """Event files in RUN/tensorboard/."""

    def __init__(self, folder: Path, done: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder), purge_step=done + 1 if done else None)

    def show(self, step: int, numbers: Mapping[str, float]) -> None:
        for name, value in numbers.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        self._writer.close()


class Wandb:
    """A run of Weights & Biases, with its files in RUN/wandb/. WANDB_PROJECT, WANDB_MODE (offline, say) and the other
    variables of its own say the rest."""

    def __init__(self, folder: Path, name: str, key: str, settings: Mapping[str, Any]) -> None:
        """key: equal for all parts of one run, so that what is resumed goes on there."""
        import wandb

        try:
            self._run = wandb.init(
                dir=str(folder), name=name, id=key, resume="allow", config=dict(settings), settings={"silent": True}
            )
        except Exception as error:  # of a network, a key, an account: it has no class of its own for them
            raise ClipkitError(f"wandb: {error}", "WANDB_MODE=offline logs without an account") from None

    def show(self, step: int, numbers: Mapping[str, float]) -> None:
        self._run.log(dict(numbers), step=step)

    def close(self) -> None:
        self._run.finish()
