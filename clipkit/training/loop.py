"""The training loop: a batch, its loss, a step, and what a run hears of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from clipkit.errors import ClipkitError
from clipkit.methods.losses.base import Loss
from clipkit.stream.engine import available_cores
from clipkit.stream.hashing import ticket
from clipkit.training import optimizers
from clipkit.training.distributed import Alone, local_world
from clipkit.training.ema import Average
from clipkit.training.gradcache import backward
from clipkit.training.loader import Batch
from clipkit.training.precision import LossScale
from clipkit.training.schedules import rate
from clipkit.training.settings import Settings
from clipkit.training.student import Student

MAX_SCALE = math.log(100)  # of the logits: beyond it training is unstable (Radford et al., 2021)


@dataclass(frozen=True)
class Step:
    """What is known after a step. step: from 1. loss, parts: means over the processes. after: as `Batch.after`.

    lr: the schedule's. scale: of the logits, norm: of the whole gradient before it was clipped (both as the step used
    them). last: no step follows. skipped: f16 alone; a gradient overflowed, so the weights are what they were.
    """

    step: int
    loss: float
    parts: dict[str, float]
    lr: float
    scale: float
    norm: float
    after: int
    last: bool = False
    skipped: bool = False


class NotFinite(ClipkitError):
    """The loss or its gradient is not a number. The weights are those before step `step`; names: of its examples, those
    of all processes. Raised in all of them."""

    def __init__(self, what: str, value: float, step: int, names: list[str]) -> None:
        shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
        super().__init__(
            f"the {what} became {value} in step {step}, on {shown}", "lower --lr, or look at these pictures"
        )
        self.value, self.step, self.names = value, step, names


class Trainer:
    """A student with all that its training remembers: optimizer, average of the weights, scale of f16's loss.

    In a group all begin with the weights of the first process.
    """

    def __init__(self, student: Student, loss: Loss, settings: Settings, group: Alone | None = None) -> None:
        self.student, self.loss, self.settings, self.group = student, loss, settings, group or Alone()
        self._parameters = student.parameters()
        self.group.broadcast([*student.model.parameters(), *student.model.buffers(), *self._parameters.values()])
        self._optimizer = optimizers.make(self._parameters, settings)
        self._average = None if settings.ema is None else Average(self._parameters, settings.ema)
        self._scale = LossScale(settings.precision)
        self._seen: set[str] = set()  # kinds of captions that there were in the steps of this process

    @property
    def notices(self) -> list[str]:
        """What the loss looks for in vain, said when steps were made: it then learns as simpler ones do."""
        found: list[str] = []
        if self._seen and self.loss.texts == "many" and "more" not in self._seen:
            found.append(f"no picture had more than one caption to show: {self.loss.name} learned from one of each")
        if self._seen and self.loss.negatives and "negative" not in self._seen:
            found.append(f"no picture had a caption marked negative: {self.loss.name} learned from true ones alone")
        return found

    def weights(self) -> dict[str, torch.Tensor]:
        """What is saved as the model and measured: by open_clip's names, averaged where `ema` is set, low-rank updates
        merged in."""
        return self.student.state(self._average.values if self._average else None)

    def state(self) -> dict[str, torch.Tensor]:
        """All that a resumed run needs, by names that a file can have; without copies, so write it before going on."""
        return {
            **{f"student:{name}": value for name, value in self.student.trained.state().items()},
            **{
                f"optimizer:{name}": value
                for name, value in optimizers.state(self._optimizer, self._parameters).items()
            },
            **{f"average:{name}": value for name, value in (self._average.values if self._average else {}).items()},
            **{f"scale:{name}": value for name, value in self._scale.state().items()},
        }

    def load(self, saved: Mapping[str, torch.Tensor]) -> None:
        """Go on from what `state` gave, exactly. Raises ValueError for what is of another model or other settings."""
        parts: dict[str, dict[str, torch.Tensor]] = {"student": {}, "optimizer": {}, "average": {}, "scale": {}}
        for name, value in saved.items():
            room, _, rest = name.partition(":")
            if room not in parts:
                raise ValueError(f"{name} is no part of a training state")
            parts[room][rest] = value
        self.student.trained.load(parts["student"])
        optimizers.load(self._optimizer, self._parameters, parts["optimizer"])
        average = self._average.values if self._average else {}
        if average.keys() != parts["average"].keys():
            raise ValueError("weights were averaged there and are not here, or the reverse")
        for name, value in parts["average"].items():
            average[name].copy_(value)
        self._scale.load(parts["scale"])

    def run(
        self,
        batches: Iterable[Batch],
        hear: Callable[[Step], None],
        *,
        done: int = 0,
        stop: Callable[[], bool] = lambda: False,
    ) -> None:
        """Steps `done` + 1 to the last. hear: told of each when it is over, in every process; it may write a checkpoint
        or raise. stop: asked in each step; it is the last one where any process says so.

        On a CPU all cores that are there work on a step. Raises NotFinite.
        """
        with _torch(self.student.device):
            for step, batch in zip(range(done + 1, self.settings.steps + 1), batches, strict=False):
                said = self._step(step, batch, stop())
                hear(said)
                if said.last:
                    return

    def _step(self, step: int, batch: Batch, stop: bool) -> Step:
        settings, group, optimizer, student = self.settings, self.group, self._optimizer, self.student
        self._seen |= _kinds(batch)
        lr = rate(settings, step)
        for one in optimizer.param_groups:
            one["lr"] = lr * one["share"]
        torch.manual_seed(int.from_bytes(ticket(f"{step}/{group.rank}", settings.seed, "train")[:7], "big"))
        optimizer.zero_grad(set_to_none=True)
        parts = backward(student, batch, self.loss, group, settings.chunk, self._scale.factor)
        group.average(list(self._parameters.values()))
        gradients = [one.grad for one in self._parameters.values() if one.grad is not None]
        values = {**parts, "scale": student.scale, "norm": _norm(gradients), "stop": torch.tensor(float(stop))}
        together = torch.stack([value.detach().float().to(student.device).reshape(()) for value in values.values()])
        known = dict(zip(values, group.mean(together).tolist(), strict=True))  # the step's one wait for the device
        norm = known["norm"] / self._scale.factor
        overflow = self._scale.factor > 1 and not math.isfinite(norm)  # at 1 it is no scale that makes it so
        for what, value in (("loss", known["loss"]), ("gradient", 0.0 if overflow else norm)):
            if not math.isfinite(value):
                raise NotFinite(what, value, step, group.names(batch.names))
        if not overflow:
            limit = 1.0 if settings.clip_norm is None else min(1.0, settings.clip_norm / max(norm, 1e-12))
            if (by := limit / self._scale.factor) != 1:
                torch._foreach_mul_(gradients, by)
            optimizer.step()
            if self.loss.trains_scale:
                student.model.logit_scale.data.clamp_(0, MAX_SCALE)
            if self._average is not None:
                self._average.update(self._parameters, step)
        self._scale.update(overflow)
        last = known["stop"] > 0 or step == settings.steps
        said = {name: known[name] for name in parts if name != "loss"}
        return Step(step, known["loss"], said, lr, known["scale"], norm, batch.after, last, overflow)


def _kinds(batch: Batch) -> set[str]:
    """Which captions a batch has: `first`, `more` beside them, `negative`."""
    more, wrong = batch.present[:, 1:], batch.negatives_present
    return (
        {"first"} | ({"more"} if more.any() else set()) | ({"negative"} if wrong is not None and wrong.any() else set())
    )


def _norm(gradients: list[torch.Tensor]) -> torch.Tensor:
    norm: torch.Tensor = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
    return norm


@contextmanager
def _torch(device: str) -> Iterator[None]:
    """torch's generators left as they were found; on a CPU all cores its own, until the end."""
    before = torch.get_num_threads()
    with torch.random.fork_rng([device] if device.startswith("cuda") else []):
        torch.set_num_threads(max(1, available_cores() // local_world()))
        try:
            yield
        finally:
            torch.set_num_threads(before)
