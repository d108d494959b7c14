"""A run is a folder: checkpoints, metrics.jsonl, run.json, and the model in the end."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from clipkit.errors import ClipkitError, UsageError
from clipkit.stream.record import encode_json
from clipkit.training import checkpoints
from clipkit.training.checkpoints import Described, Origin, Reached

if TYPE_CHECKING:
    from clipkit.training.loop import Trainer

_MADE: Final = ("checkpoints", "model", "tensorboard", "wandb", "metrics.jsonl", "loss.svg", "nan.json", "run.json")


class RunFolder:
    """RUN/. model: the trained one, as `--model ./RUN/model/` and open_clip load it. Only one process writes here."""

    def __init__(self, path: str | Path, keep: int = 2) -> None:
        self.path, self._keep = Path(path), keep
        self.checkpoints, self.model = self.path / "checkpoints", self.path / "model"
        self.metrics, self.card, self.plot = (self.path / name for name in ("metrics.jsonl", "run.json", "loss.svg"))
        self._fresh = False

    @property
    def resumable(self) -> bool:
        """Whether there is something to go on from."""
        return checkpoints.newest(self.checkpoints) is not None

    @property
    def _bare(self) -> bool:
        """Whether nothing is there that somebody might want: a run that ended before its first checkpoint."""
        kept = self.checkpoints.iterdir() if self.checkpoints.is_dir() else ()
        return not os.path.lexists(self.model) and all(path.name.startswith(".step-") for path in kept)

    def note(self, name: str, said: Any) -> Path:
        """Write a small JSON file, whole or not at all."""
        path = self.path / name
        part = path.with_name(f"{name}.part")
        part.unlink(missing_ok=True)  # never through a link
        with open(part, "wb") as file:
            file.write(msgspec.json.format(encode_json(said), indent=2) + b"\n")
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
        return path

    def check(self, *, resume: bool, restart: bool, model: str) -> None:
        """Raise before any work where a run of `model` cannot be written here: UsageError, ClipkitError for an
        unfinished run."""
        parent = Path(os.path.realpath(self.path)).parent
        if not parent.is_dir():
            raise UsageError(f"-o {self.path}: there is no folder {parent}", f"make it first: mkdir -p {parent}")
        if self.path.exists() and not self.path.is_dir():
            raise UsageError(f"-o {self.path} is a file", "a run is a folder: name a new one")
        if not self.path.is_dir() or not any(self.path.iterdir()):
            return
        card = self.read_card()
        if card is None:
            raise UsageError(f"-o {self.path} is no run of clipkit train, and not empty", "name a new folder")
        if restart and (used := self._used(model)):
            raise UsageError(f"--restart removes {used}, which --model begins with", "name another folder: -o DIR")
        if restart or (not card.get("finished") and (resume or self._bare)):
            return
        if card.get("finished"):
            hint = f"--restart begins anew, and --model {typed(self.model)} goes on from its model into another -o"
            raise ClipkitError(f"the run in {self.path} is finished", hint)
        raise ClipkitError(f"an unfinished run is in {self.path}", "--resume goes on with it, --restart begins anew")

    def read_card(self) -> dict[str, Any] | None:
        """run.json, where it is one that `clipkit train` wrote."""
        try:
            card = msgspec.json.decode(self.card.read_bytes(), type=dict[str, Any])
        except (OSError, msgspec.DecodeError):
            return None
        return card if card.get("verb") == "train" else None

    def write_card(self, card: dict[str, Any]) -> None:
        """Write run.json."""
        self.note(self.card.name, card)

    def _used(self, model: str) -> Path | None:
        """What a run begun anew would remove of the model that it begins with."""
        real = Path(os.path.realpath(model.partition(":")[2] or model))
        if real == Path(os.path.realpath(self.path)):
            return self.model  # a run stands for its model
        made = (Path(os.path.realpath(self.path)) / name for name in _MADE)
        return next((self.path / one.name for one in made if one == real or one in real.parents), None)

    def begin(self, *, restart: bool) -> None:
        """Make the folder; what an earlier run left there is removed where it is begun anew, or has nothing to go on
        from, and nothing else."""
        self._fresh = not self.path.is_dir()
        if restart or self._bare:
            self._clear()
        self.checkpoints.mkdir(parents=True, exist_ok=True)
        checkpoints.sweep(self.checkpoints)

    def discard(self) -> None:
        """Leave nothing of a run that `begin` began."""
        self._clear()
        if self._fresh:
            with contextlib.suppress(OSError):  # somebody put something there
                self.path.rmdir()

    def _clear(self) -> None:
        for name in _MADE:
            path = self.path / name
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)

    def last(self, origin: Origin) -> Reached | None:
        """Where an earlier run of the same kind stopped. Raises ClipkitError where it was another kind of run."""
        path = checkpoints.newest(self.checkpoints)
        if path is None:
            return None
        found = checkpoints.described(path)
        if different := found.origin.differs(origin):
            hint = f"go on as it began, or --restart, or begin another run from its model: --model {typed(path)}"
            raise ClipkitError(f"the run in {self.path} is another one: {'; '.join(different)}", hint)
        return found.reached

    def load(self, trainer: Trainer) -> None:
        """Make a trainer what it was at the last checkpoint. Raises ClipkitError where that is not of this model."""
        path = checkpoints.newest(self.checkpoints)
        assert path is not None
        try:
            trainer.load(checkpoints.tensors(path))
        except ValueError as error:
            raise ClipkitError(f"{path} does not fit: {error}") from None

    def write(self, trainer: Trainer, origin: Origin, reached: Reached) -> None:
        """Write a checkpoint."""
        said = Described(checkpoints.FORMAT, origin, reached)
        weights, state = trainer.weights(), trainer.state()
        checkpoints.write(self.checkpoints, trainer.student.encoder, weights, state, said, keep=self._keep)

    def finish(self, trainer: Trainer) -> None:
        """Write the model, in place of one that a killed run may have written just before its end."""
        if self.model.is_symlink():
            self.model.unlink()
        elif self.model.is_dir():
            shutil.rmtree(self.model)
        checkpoints.save(self.model, lambda: trainer.student.encoder.save_state(self.model, trainer.weights()))


def typed(path: Path) -> str:
    """A folder as `--model` takes it, in a shell."""
    return shlex.quote(f"{path}/" if path.is_absolute() else f"./{path}/")
