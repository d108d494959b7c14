"""What two processes that train together compute, beside one: run by torchrun, a JSON object on rank 0's stdout."""

from __future__ import annotations

import math
import sys
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import msgspec
import torch

from clipkit.methods import LOSSES
from clipkit.training.distributed import Alone, processes
from clipkit.training.gradcache import backward
from clipkit.training.loader import Batch
from clipkit.training.loop import NotFinite, Step, Trainer
from tests.training.students import batch, encoder, student

CASES: dict[str, tuple[str, dict[str, str], int | None]] = {
    "clip, local": ("clip", {"local": "true"}, None),
    "clip, not local": ("clip", {"local": "false"}, None),
    "clip, in chunks": ("clip", {}, 2),
    "siglip": ("siglip", {}, None),
    "multi-positive": ("multi-positive", {}, None),
    "softened": ("softened", {}, None),
    "infoloob": ("infoloob", {}, None),
    "hq-clip": ("hq-clip", {}, None),
    "distill": ("distill", {}, None),
    "coca": ("coca", {}, None),
    "coca, in chunks": ("coca", {}, 2),
}


def main(out: Path) -> None:
    torch.set_num_threads(1)
    with processes("cpu") as group:
        said: dict[str, Any] = {"gradients": {case: gradients(group, *CASES[case]) for case in CASES}}
        said |= {"names": group.names(["a", "b b"] if group.rank else []), "stopped": stopped(group)}
        said |= {"average": average(group), "broken": broken(group)}
        if group.leader:
            out.write_bytes(msgspec.json.encode(said))


def gradients(group: Alone, name: str, settings: dict[str, str], chunk: int | None) -> list[float]:
    """The largest difference to one process, of losses and of gradients, and the largest gradient."""
    loss = LOSSES.get(name).from_settings(settings)
    both, one = student(name), student(name)
    whole = batch(one)
    here = backward(both, share(whole, group), loss, group, chunk)
    group.average(list(both.parameters().values()))
    there = backward(one, whole, loss, Alone(), None)
    worst = largest = 0.0
    for (at, mine), its in zip(both.parameters().items(), one.parameters().values(), strict=True):
        assert (mine.grad is None) == (its.grad is None), (name, at)
        if mine.grad is not None and its.grad is not None:
            worst = max(worst, float((mine.grad - its.grad).abs().max()))
            largest = max(largest, float(its.grad.abs().max()))
    return [abs(float(group.mean(here["loss"])) - float(there["loss"])), worst, largest]


def share(whole: Batch, group: Alone) -> Batch:
    size = len(whole.names) // group.world
    rows = slice(group.rank * size, (group.rank + 1) * size)
    held = {field.name: getattr(whole, field.name) for field in fields(whole)}
    return replace(
        whole, **{name: value[rows] for name, value in held.items() if isinstance(value, list | torch.Tensor)}
    )


def average(group: Alone) -> list[list[float] | None]:
    """Of gradients that both have, the second alone, none."""
    parameters = [torch.nn.Parameter(torch.zeros(2)) for _ in range(3)]
    parameters[0].grad = torch.full((2,), float(group.rank))
    if group.rank:
        parameters[1].grad = torch.tensor([3.0, 5.0])
    group.average(parameters)
    return [None if parameter.grad is None else parameter.grad.tolist() for parameter in parameters]


def trainer(group: Alone) -> Trainer:
    learns = student(double=False, steps=4, lr=0.01, epsilon=0.1)  # Adam makes much of a small gradient's last bits
    if group.rank:  # it begins with the first one's all the same
        for parameter in learns.parameters().values():
            parameter.data.add_(1.0)
    return Trainer(learns, learns.loss, learns.settings, group)


def stopped(group: Alone) -> list[Any]:
    """The second process wants to stop in the second step. Steps, and whether the weights are those of one process."""
    both, alone = trainer(group), trainer(Alone())
    alone.student.model.load_state_dict(encoder().module().state_dict())
    steps: list[Step] = []
    batches = [batch(both.student, double=False, seed=seed) for seed in range(4)]
    both.run((share(one, group) for one in batches), steps.append, stop=lambda: group.rank == 1 and len(steps) == 1)
    alone.run(batches[:2], lambda step: None)
    apart = max(float((value - alone.weights()[name]).abs().max()) for name, value in both.weights().items())
    return [len(steps), steps[-1].last, apart]


def broken(group: Alone) -> list[Any]:
    """A picture of the second process is not a number: all stop, and know the names."""
    both = trainer(group)
    whole = batch(both.student, double=False)
    whole.pixels[-1, 0, 0, 0] = math.nan
    try:
        both.run([share(whole, group)], lambda step: None)
    except NotFinite as error:
        return [error.step, error.names, all(bool(value.isfinite().all()) for value in both.weights().values())]
    return []


if __name__ == "__main__":
    main(Path(sys.argv[1]))
