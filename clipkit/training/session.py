"""A training run from where it stands to its end: steps, evaluations, checkpoints, and what is written of it."""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any, Final

import torch
from msgspec import structs

from clipkit.errors import ClipkitError, Terminated
from clipkit.models.identity import weights_digest
from clipkit.stream.signals import Patience
from clipkit.training import card
from clipkit.training.checkpoints import MOST_FAILED, Best, Origin, Reached
from clipkit.training.evaluating import Evaluation, headline
from clipkit.training.folder import RunFolder
from clipkit.training.loader import Batch, Loader
from clipkit.training.loop import NotFinite, Step, Trainer
from clipkit.training.shards import APART
from clipkit.training.watch import Board, Kind, Metrics, TensorBoard, Wandb

_PARTS: Final = 10  # of a run, a checkpoint after each
_MOST_STEPS: Final = 1000  # between two checkpoints


@dataclass(frozen=True)
class Habits:
    """What a run does beside learning. 0: as often as suits its length, and for evaluations, with each checkpoint."""

    checkpoint_every: int = 0
    eval_every: int = 0
    log: Kind = "jsonl"

    def over(self, steps: int) -> Habits:
        """With what suits a run of so many steps."""
        checkpoints = self.checkpoint_every or max(1, min(_MOST_STEPS, steps // _PARTS))
        return replace(self, checkpoint_every=checkpoints, eval_every=self.eval_every or checkpoints)


@dataclass
class Session:
    """Runs a trainer. In a group every process has one; only the first writes, and only it has a folder to write to.

    folder: None to leave nothing behind. say: told what it is at. pairs: examples of an epoch. named: the model as it
    was asked for. evaluation: None without one.
    """

    trainer: Trainer
    origin: Origin
    folder: RunFolder | None
    habits: Habits
    evaluation: Evaluation | None
    named: str
    pairs: int
    say: Callable[[str], None]
    reached: Reached = field(default_factory=lambda: Reached(0, []))
    figures: dict[str, Any] | None = None
    loss: float | None = None
    notices: list[str] = field(default_factory=list)
    _metrics: Metrics | None = None
    _board: Board | None = None

    def run(self, loader: Callable[[int], Loader], patience: Patience, *, resume: bool, restart: bool) -> None:
        """Train to the end. loader: makes the batches from a position on.

        Raises what a signal stands for, after a checkpoint; NotFinite; ClipkitError where nothing can be written, or
        memory is not enough.
        """
        try:
            self._run(loader, patience, resume=resume, restart=restart)
        except torch.OutOfMemoryError:
            size = self.trainer.settings.chunk or self.trainer.settings.batch_size // self.trainer.group.world
            hint = f"fewer at once are the same step in less memory: --chunk {max(1, size // 4)}"
            device = self.trainer.student.device
            raise ClipkitError(f"{size} pairs at once need more memory than {device} has", hint) from None

    def _run(self, loader: Callable[[int], Loader], patience: Patience, *, resume: bool, restart: bool) -> None:
        group, settings = self.trainer.group, self.trainer.settings
        self._began = time.monotonic()
        self._fresh: dict[str, str] = {}  # failures of this process since the last checkpoint
        self._apart = False  # whether it came upon samples of val or test
        if self.folder and resume and (last := self.folder.last(self.origin)):
            self.reached = last
            self.folder.load(self.trainer)
        group.barrier()  # nobody reads any more what the first one may now remove
        self._start, self._before = self.reached.step, self.reached.seconds
        with contextlib.ExitStack() as logs:
            if self.folder and group.leader:
                self._open(self.folder, logs, restart=restart)
            if self._start == 0:
                self._measure(0)
            positions = self.reached.positions
            batches = loader(positions[group.rank] if positions else 0)
            logs.callback(batches.close)
            self._told = time.monotonic()
            try:
                self.trainer.run(self._noted(batches), self._hear, done=self._start, stop=lambda: bool(patience.noted))
            except NotFinite as error:
                raise self._not_finite(error) from None
            if self.reached.step < settings.steps:
                patience.fire()
                raise Terminated  # another process was told to stop
        if self.folder and group.leader:
            self._finish(self.folder)
        group.barrier()

    def _open(self, folder: RunFolder, logs: contextlib.ExitStack, *, restart: bool) -> None:
        """Make the folder, what says whose it is, and the logs."""
        logs.push(self._left)
        key = (folder.read_card() or {}).get("key") if self._start else None
        folder.begin(restart=restart)
        self._card = card.begun(self.named, self.origin, self.pairs) | {"key": key or secrets.token_hex(4)}
        folder.write_card(self._card)
        self._metrics = Metrics(folder.metrics, self._start)
        logs.callback(self._metrics.close)
        if self.habits.log == "tensorboard":
            self._board = TensorBoard(folder.path / "tensorboard", self._start)
        elif self.habits.log == "wandb":
            self._board = Wandb(folder.path, folder.path.name, self._card["key"], self.origin.settings)
        if self._board:
            logs.callback(self._board.close)

    def _left(self, kind: type[BaseException] | None, *_: object) -> None:
        """A run that ended before its first step leaves nothing that the next try would stumble over."""
        begun = self.reached.step or self.loss is not None
        if self.folder and kind and not begun and not issubclass(kind, NotFinite):  # of which nan.json tells
            self.folder.discard()

    def _noted(self, loader: Loader) -> Iterator[Batch]:
        for batch in loader:
            for name, kind in batch.failed.items():
                if kind == APART:
                    self._apart = True
                elif name not in self.reached.failed and len(self._fresh) < MOST_FAILED:
                    self._fresh[name] = kind
            yield batch

    def _hear(self, step: Step) -> None:
        settings, habits = self.trainer.settings, self.habits
        self.loss = step.loss
        now = time.monotonic()
        pace = settings.batch_size / max(now - self._told, 1e-9)
        said = {
            "step": step.step,
            "samples": step.step * settings.batch_size,
            "loss": step.loss,
            **step.parts,
            "lr": step.lr,
            "scale": step.scale,
            "norm": step.norm,
        }
        if self._metrics:
            self._metrics.write(said | {"samples_per_s": round(pace, 1)})
        if self._board:
            self._board.show(step.step, {name: value for name, value in said.items() if name != "step"})
        self._tell(step.step, now)
        if step.step % habits.eval_every == 0 or step.step == settings.steps:
            self._measure(step.step)
        if step.step % habits.checkpoint_every == 0 or step.last:
            self._checkpoint(step)
        self._tell(step.step, time.monotonic())
        self._told = time.monotonic()

    def _tell(self, step: int, now: float) -> None:
        """Progress: where it is, how fast, and how long it will take from here."""
        steps = self.trainer.settings.steps
        pace = (step - self._start) / max(now - self._began, 1e-9)
        left = timedelta(seconds=round((steps - step) / pace))
        speed = f"{pace * self.trainer.settings.batch_size:,.0f} samples/s"
        self.say(f"step {step:,} of {steps:,}, loss {self.loss:.3f}, {speed}, {left} left")

    def _measure(self, step: int) -> None:
        """Measure the weights that would be saved now, without a trace in the training."""
        trainer = self.trainer
        if self.evaluation is None or not trainer.group.leader:
            return
        self.say(f"measuring after step {step:,}")
        base = trainer.student.encoder
        with torch.random.fork_rng([base.device] if base.device.startswith("cuda") else []):
            model = base.module()
            model.load_state_dict(trainer.weights())
            self.figures = self.evaluation.measure(base.rebuilt(model, base.identity.name))
        name, value = headline(self.figures)
        best = self.reached.best
        if best is None or value > best.value:
            self.reached = structs.replace(self.reached, best=Best(step, name, value, self.figures))
        if self._metrics:
            self._metrics.write({"step": step, "eval": self.figures})
        if self._board:
            self._board.show(step, {f"eval/{name}": value for name, value in self.figures.items() if name != "n"})

    def _checkpoint(self, step: Step) -> None:
        """Every process says where it is and what failed; the first one writes."""
        group = self.trainer.group
        self.say(f"writing a checkpoint after step {step.step:,}")
        positions = group.gather(torch.tensor([step.after], device=self.trainer.student.device)).tolist()
        failed = group.names([f"{kind} {name}" for name, kind in self._fresh.items()])
        self._fresh = {}
        known = dict(self.reached.failed)
        for text in failed:
            kind, _, name = text.partition(" ")
            if len(known) < MOST_FAILED:
                known[name] = kind
        seconds = self._before + time.monotonic() - self._began
        self.reached = structs.replace(self.reached, step=step.step, positions=positions, failed=known, seconds=seconds)
        if self.folder and self._metrics:
            self._metrics.sync()
            self.folder.write(self.trainer, self.origin, self.reached)

    def _not_finite(self, error: NotFinite) -> ClipkitError:
        if self.folder and self.trainer.group.leader:
            path = self.folder.note("nan.json", {"step": error.step, "loss": str(error.value), "ids": error.names})
            kept = f"the last checkpoint is of step {self.reached.step:,}" if self.reached.step else "no checkpoint yet"
            error.hint = f"{error.hint}: their ids are in {path}; {kept}"
        return error

    def _finish(self, folder: RunFolder) -> None:
        self.say("writing the model")
        folder.finish(self.trainer)
        identity = self.trainer.student.encoder.identity
        trained = replace(identity, weights=weights_digest(self.trainer.weights())).digest
        came = card.reached(self.reached, self.origin.settings, folder.metrics)
        self.loss, self.figures = came["loss"]["last"], came["eval"]  # also where no step was left to do
        if self._apart:
            self.notices.append("samples of the splits val and test were left out; --eval SOURCE measures on them")
        done = self._card | {"finished": True, "trained": {"digest": trained}} | came
        if not card.draw(done, folder.metrics, folder.plot):
            self.notices.append("no loss.svg: it needs matplotlib (pip install 'clipkit[plots]')")
        folder.write_card(done)
