"""Several processes with a part of a batch each, over gloo: they have the gradients of one with all of it."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from dataclasses import fields, replace
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
from clipkit.training.student import Student
from tests.methods.losses import naive
from tests.training.students import batch, student

NAMES = [entry.name for entry in LOSSES]
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
    distributed.init_process_group("gloo", f"file://{folder}/store", rank=rank, world_size=count)
    torch.save(work(Together()), folder / f"{rank}.pt")
    distributed.destroy_process_group()


def learnt(name: str, arrays: naive.Arrays, group: Any) -> dict[str, torch.Tensor]:
    """The loss, its parts, and its gradients."""
    outputs = naive.outputs(arrays)
    said = LOSSES.get(name).from_settings({})(outputs, group)
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
        return {f"{name}/{key}": value for name in NAMES for key, value in learnt(name, share, group).items()}

    shares = in_processes(count, tmp_path, work)
    for name in NAMES:
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
