"""Several processes with a part of a batch each, over gloo: they have the gradients of one with all of it."""

from __future__ import annotations

import math
import multiprocessing
from collections.abc import Callable
from dataclasses import fields, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import distributed

from clipkit.methods import LOSSES
from clipkit.training.distributed import Alone, Together
from clipkit.training.gradcache import backward
from clipkit.training.loader import Batch
from clipkit.training.loop import NotFinite, Step, Trainer
from clipkit.training.student import Student
from tests.methods.losses import naive
from tests.training.students import batch, encoder, student

CASES: dict[str, dict[str, str]] = {entry.name: {} for entry in LOSSES} | {"clip, not local": {"local": "false"}}
CHUNKED = ("clip", "siglip", "coca", "infoloob")
LEAVES = ("image", "text", "scale", "bias", "negatives", "logits")
pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


def in_processes(
    count: int, folder: Path, work: Callable[[Together], dict[str, torch.Tensor]]
) -> list[dict[str, torch.Tensor]]:
    """What `work` gives in each. They are forked: torch and the models are there already."""
    context = multiprocessing.get_context("fork")
    children = [context.Process(target=_child, args=(folder, rank, count, work)) for rank in range(count)]
    for child in children:
        child.start()
    for child in children:
        child.join()
    assert [child.exitcode for child in children] == [0] * count
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(count)]


def _child(folder: Path, rank: int, count: int, work: Callable[[Together], dict[str, torch.Tensor]]) -> None:
    torch.set_num_threads(1)
    patience = timedelta(minutes=2)  # with one that failed
    distributed.init_process_group("gloo", f"file://{folder}/store", patience, world_size=count, rank=rank)
    torch.save(work(Together()), folder / f"{rank}.pt")
    distributed.destroy_process_group()


def learnt(case: str, arrays: naive.Arrays, group: Any) -> dict[str, torch.Tensor]:
    """The loss, its parts, and its gradients."""
    outputs = naive.outputs(arrays)
    said = LOSSES.get(case.partition(",")[0]).from_settings(CASES[case])(outputs, group)
    said["loss"].backward()
    slopes = {leaf: getattr(outputs, leaf).grad for leaf in LEAVES}
    return {part: value.detach() for part, value in said.items()} | {k: v for k, v in slopes.items() if v is not None}


@pytest.mark.parametrize("count", [2, 3])
def test_shares_of_every_loss(count: int, tmp_path: Path) -> None:
    """The mean over processes is the whole; a row's gradient is where the row is, and a mean divides it too."""
    arrays = naive.arrays(1, pairs=6)
    arrays["tokens"][:2, 2:] = 0  # the first process has shorter captions than the others
    size = 6 // count

    def work(group: Together) -> dict[str, torch.Tensor]:
        rows = slice(size * group.rank, size * (group.rank + 1))
        share = {key: held[rows] if held.ndim else held for key, held in arrays.items()}
        return {f"{name}/{key}": value for name in CASES for key, value in learnt(name, share, group).items()}

    shares = in_processes(count, tmp_path, work)
    for name in CASES:
        for key, expected in learnt(name, arrays, Alone()).items():
            parts = [share[f"{name}/{key}"] for share in shares]
            found = torch.cat(parts) if expected.ndim else torch.stack(parts).sum()
            np.testing.assert_allclose(found / count, expected, rtol=1e-10, atol=1e-13, err_msg=f"{name}: {key}")


def test_chunks_of_shares(tmp_path: Path) -> None:
    """Gradient caching in each process: the weights' gradients are those of the whole batch at once."""
    learning = {name: student(name) for name in CHUNKED}
    pairs = {name: batch(learns) for name, learns in learning.items()}

    def work(group: Together) -> dict[str, torch.Tensor]:
        found = {}
        for name, learns in learning.items():
            rows = slice(3 * group.rank, 3 * group.rank + 3)
            said = backward(learns, _rows(pairs[name], rows), learns.loss, group, 2)
            group.average(list(learns.parameters().values()))
            found |= {f"{name}/{key}": value for key, value in {**_gradients(learns), **said}.items()}
        return found

    first, second = in_processes(2, tmp_path, work)
    for name, learns in learning.items():
        said = backward(learns, pairs[name], learns.loss, Alone())
        for key, value in said.items():
            mean = (first[f"{name}/{key}"] + second[f"{name}/{key}"]) / 2
            torch.testing.assert_close(mean, value, rtol=1e-10, atol=1e-12)
        for key, value in _gradients(learns).items():
            torch.testing.assert_close(first[f"{name}/{key}"], value, rtol=1e-9, atol=1e-12, msg=f"{name}: {key}")
            assert torch.equal(first[f"{name}/{key}"], second[f"{name}/{key}"])


def _rows(pairs: Batch, rows: slice) -> Batch:
    held = {field.name: getattr(pairs, field.name) for field in fields(pairs)}
    cut: dict[str, Any] = {key: value[rows] for key, value in held.items() if isinstance(value, list | torch.Tensor)}
    return replace(pairs, **cut)


def _gradients(learns: Student) -> dict[str, torch.Tensor]:
    return {name: value.grad for name, value in learns.parameters().items() if value.grad is not None}


def test_what_some_processes_lack(tmp_path: Path) -> None:
    """Gradients that both have, the second alone, none; names of the second alone."""

    def work(group: Together) -> dict[str, torch.Tensor]:
        parameters = [torch.nn.Parameter(torch.zeros(2)) for _ in range(3)]
        parameters[0].grad = torch.full((2,), float(group.rank))
        if group.rank:
            parameters[1].grad = torch.tensor([3.0, 5.0])
        group.average(parameters)
        assert group.names(["a", "b b"] if group.rank else []) == ["a", "b b"]
        return {str(number): one.grad for number, one in enumerate(parameters) if one.grad is not None}

    for found in in_processes(2, tmp_path, work):
        assert {number: value.tolist() for number, value in found.items()} == {"0": [0.5, 0.5], "1": [1.5, 2.5]}


def trainer(group: Alone, weights: dict[str, torch.Tensor] | None = None) -> Trainer:
    learns = student(double=False, steps=4, lr=0.01, epsilon=0.1)  # Adam makes much of a small gradient's last bits
    if weights:
        learns.model.load_state_dict(weights)
    return Trainer(learns, learns.loss, learns.settings, group)


def test_all_stop_together(tmp_path: Path) -> None:
    """Both begin with the weights of the first. The second wants to stop in the second step."""
    alone = trainer(Alone())
    batches = [batch(alone.student, double=False, seed=seed) for seed in range(4)]
    apart = {name: value + 1 for name, value in encoder().module().state_dict().items() if value.is_floating_point()}

    def work(group: Together) -> dict[str, torch.Tensor]:
        both = trainer(group, apart if group.rank else None)
        steps: list[Step] = []
        mine = slice(3 * group.rank, 3 * group.rank + 3)
        both.run((_rows(one, mine) for one in batches), steps.append, stop=lambda: bool(group.rank and steps))
        assert [step.last for step in steps] == [False, True]
        return both.weights()

    found = in_processes(2, tmp_path, work)
    alone.run(batches[:2], lambda step: None)
    for name, value in alone.weights().items():
        torch.testing.assert_close(found[0][name], value, rtol=0, atol=1e-6, msg=name)
        assert torch.equal(found[0][name], found[1][name])


def test_a_picture_that_is_not_a_number_stops_all(tmp_path: Path) -> None:
    whole = batch(student(double=False), double=False)
    whole.pixels[-1, 0, 0, 0] = math.nan  # of the second process

    def work(group: Together) -> dict[str, torch.Tensor]:
        both = trainer(group)
        with pytest.raises(NotFinite) as raised:
            both.run([_rows(whole, slice(3 * group.rank, 3 * group.rank + 3))], lambda step: None)
        assert (raised.value.step, raised.value.names) == (1, whole.names)
        return both.weights()

    before = trainer(Alone()).weights()
    for found in in_processes(2, tmp_path, work):
        assert all(torch.equal(value, before[name]) for name, value in found.items())
