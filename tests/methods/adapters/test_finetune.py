"""The training loop by itself: batches, schedule, views, faults."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import numpy as np
import pytest
import torch

from clipkit.errors import ClipkitError
from clipkit.methods.adapters import finetune
from clipkit.methods.adapters.data import Samples, Task
from clipkit.methods.adapters.finetune import batches, train, watching


@dataclass(frozen=True)
class Numbered:
    """A picture of one pixel: its row and its view."""

    count: int
    broken: int = -1

    def __len__(self) -> int:
        return self.count

    def pixels(self, row: int, view: int = 0) -> np.ndarray:
        if row == self.broken:
            raise ClipkitError(f"picture {row} is gone")
        return np.array([row, view, 0], np.float32).reshape(3, 1, 1)


def samples(count: int, seed: int = 0, **pictures: Any) -> Samples:
    task = Task(("a", "b"), np.eye(2, dtype=np.float32), 1.0, seed=seed)
    names = tuple(f"n{row}" for row in range(count))
    return Samples(task, np.arange(count) % 2, pictures=Numbered(count, **pictures), names=names)


def parameter(value: float = 1.0) -> torch.nn.Parameter:
    return torch.nn.Parameter(torch.tensor([value]))


def test_an_epoch_shows_every_sample_once_in_another_order() -> None:
    drawn = list(islice(batches(samples(10), 4), 6))
    assert [(epoch, len(rows)) for epoch, rows in drawn] == [(0, 4), (0, 4), (0, 2), (1, 4), (1, 4), (1, 2)]
    first, second = (np.concatenate([rows for at, rows in drawn if at == epoch]) for epoch in (0, 1))
    assert sorted(first) == sorted(second) == list(range(10)) and not np.array_equal(first, second)


def test_batches_hang_on_names_not_on_order() -> None:
    given = samples(9)
    turned = given.take(np.arange(9)[::-1])
    for (_, rows), (_, others) in zip(islice(batches(given, 4), 6), batches(turned, 4), strict=False):
        assert [given.names[row] for row in rows] == [turned.names[row] for row in others]
    other = next(batches(samples(9, seed=1), 9))[1]
    assert not np.array_equal(next(batches(given, 9))[1], other)


def test_the_loss_is_given_the_pictures_of_the_batch_as_views_of_its_epoch() -> None:
    seen: list[tuple[list[int], set[int], list[int]]] = []
    weight = parameter()

    def loss(pixels: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        rows = pixels[:, 0, 0, 0].int().tolist()
        seen.append((rows, set(pixels[:, 1, 0, 0].int().tolist()), labels.tolist()))
        return weight.sum()

    given = samples(5)
    train([weight], loss, given, steps=7, lr=0.1, batch_size=3)
    for (rows, views, labels), (epoch, expected) in zip(seen, batches(given, 3), strict=False):
        assert rows == expected.tolist() and views == {epoch + 1} and labels == [row % 2 for row in rows]
    assert len(seen) == 7


def test_the_rate_falls_along_a_cosine_to_its_least() -> None:
    """AdamW moves a parameter whose gradient is always 1 by the rate."""
    weight, values = parameter(0.0), list[float]()

    def loss(pixels: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        values.append(float(weight.detach()))
        return weight.sum()

    train([weight], loss, samples(2), steps=5, lr=1.0, min_lr=0.1)
    expected = [0.1 + 0.9 * (1 + math.cos(math.pi * step / 5)) / 2 for step in range(5)]
    assert -np.diff([*values, float(weight.detach())]) == pytest.approx(expected, rel=1e-5)


def test_adamw_is_torchs() -> None:
    weight, other = parameter(2.0), parameter(2.0)
    losses = train([weight], lambda *_: (weight**2).sum(), samples(2), steps=1, lr=0.1, weight_decay=0.5)
    descent = torch.optim.AdamW([other], lr=0.1, weight_decay=0.5)
    (other**2).sum().backward()
    descent.step()
    assert torch.equal(weight, other) and losses == [4.0]


def test_a_loss_that_is_not_finite_names_the_samples() -> None:
    weight = parameter()

    def loss(pixels: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return (weight / 0).sum() if 3 in pixels[:, 0] else weight.sum()

    with pytest.raises(ClipkitError, match=r"the loss became inf in step \d, on (n\d, )?n3"):
        train([weight], loss, samples(4), steps=4, lr=0.1, batch_size=2)


def test_parameters_without_a_part_in_the_loss_are_refused() -> None:
    with pytest.raises(ClipkitError, match="1 of the 2 arrays"):
        used, idle = parameter(), parameter()
        train([used, idle], lambda *_: used.sum(), samples(2), steps=2, lr=0.1)
    with pytest.raises(ClipkitError, match="1 of the 1 arrays"):
        train([parameter()], lambda *_: torch.tensor(1.0), samples(2), steps=2, lr=0.1)


def test_what_a_picture_raises_comes_through() -> None:
    weight = parameter()
    with pytest.raises(ClipkitError, match="picture 1 is gone"):
        train([weight], lambda *_: weight.sum(), samples(3, broken=1), steps=3, lr=0.1)


def test_stopped_by_hand_it_stops_at_once() -> None:
    weight, steps = parameter(), []

    def loss(pixels: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        steps.append(1)
        if len(steps) == 2:
            raise KeyboardInterrupt
        return weight.sum()

    with pytest.raises(KeyboardInterrupt):
        train([weight], loss, samples(2), steps=100, lr=0.1)
    assert len(steps) == 2


def test_whoever_watches_hears_of_each_step() -> None:
    heard: list[tuple[int, int, float]] = []
    weight = parameter()

    def run() -> None:
        train([weight], lambda *_: weight.sum() * 0 + 2, samples(2), steps=3, lr=0.1)

    with watching(lambda *at: heard.append(at)):
        run()
    run()
    assert heard == [(1, 3, 2.0), (2, 3, 2.0), (3, 3, 2.0)]


def test_what_torch_draws_is_seeded_by_the_task() -> None:
    def draws(seed: int) -> list[float]:
        weight = parameter()
        return train([weight], lambda *_: weight.sum() * 0 + torch.rand(1).sum(), samples(2, seed), steps=3, lr=0.1)

    assert draws(0) == draws(0) != draws(1)


def test_threads_are_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finetune, "available_cores", lambda: 2)
    weight, before, inside = parameter(), torch.get_num_threads(), []
    train([weight], lambda *_: (inside.append(torch.get_num_threads()), weight.sum())[1], samples(2), steps=1, lr=0.1)
    assert inside == [2] and torch.get_num_threads() == before


def test_samples_without_names_are_told_apart_by_their_numbers() -> None:
    assert sorted(next(batches(replace(samples(5), names=()), 5))[1]) == list(range(5))
