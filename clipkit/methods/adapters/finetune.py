"""The training loop of the methods that go through the model: batches by hash, augmented views, one schedule."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Final, TypeAlias

import numpy as np

from clipkit.errors import ClipkitError
from clipkit.methods.adapters import selection
from clipkit.methods.adapters.data import Samples, shuffled
from clipkit.stream.engine import available_cores

if TYPE_CHECKING:
    import torch

Loss: TypeAlias = "Callable[[torch.Tensor, torch.Tensor], torch.Tensor]"
Watcher: TypeAlias = Callable[[int, int, float], None]

_AHEAD: Final = 2  # batches that are decoded while one is trained on
_watcher: ContextVar[Watcher | None] = ContextVar("watcher", default=None)


@contextmanager
def watching(watcher: Watcher) -> Iterator[None]:
    """Whoever trains inside calls `watcher(step, steps, loss)` after each step (from 1): for a progress line."""
    token = _watcher.set(watcher)
    try:
        yield
    finally:
        _watcher.reset(token)


def tell(step: int, steps: int, loss: float) -> None:
    """Say that a step is done (from 1) to whoever is `watching`."""
    if (watcher := _watcher.get()) is not None:
        watcher(step, steps, loss)


def train(
    parameters: Sequence[torch.nn.Parameter],
    loss: Loss,
    samples: Samples,
    *,
    steps: int,
    lr: float,
    min_lr: float = 0.0,
    weight_decay: float = 0.0,
    batch_size: int = 32,
    device: str = "cpu",
) -> list[float]:
    """Change `parameters` in place so that `loss` falls on batches of samples; returns the loss of each step.

    loss(pixels f32 [b, 3, h, w], labels int64 [b]), both on `device`, gives a scalar. An epoch shows every sample once,
    as another crop each time (`Pictures.pixels`, view epoch + 1), in an order that is a hash of names, seed and epoch;
    its last batch may be smaller. AdamW; lr falls along a half cosine to min_lr. What torch draws (dropout) is seeded
    by the task, and its generator is left as it was found. On a CPU all cores work on one step: the last bits of the
    result hang on their number.
    Raises ClipkitError where the loss is not finite, or doesn't hang on all parameters.
    """
    import torch

    descent = torch.optim.AdamW(parameters, lr=lr, weight_decay=weight_decay)
    losses = []
    with _torch_state(samples.task.seed, device):
        for step, (rows, pixels) in enumerate(_loaded(samples, batch_size, steps)):
            for group in descent.param_groups:
                group["lr"] = _rate(step, steps, lr, min_lr)
            labels = torch.from_numpy(samples.labels[rows].astype(np.int64)).to(device)
            value = loss(torch.from_numpy(pixels).to(device), labels)
            number = float(value.detach())
            if not math.isfinite(number):
                raise _not_finite(number, step, [selection.names(samples)[row] for row in rows.tolist()])
            descent.zero_grad(set_to_none=True)
            if value.requires_grad:
                value.backward()  # type: ignore[no-untyped-call]
            if not step:
                _check_reached(parameters)
            descent.step()
            losses.append(number)
            tell(step + 1, steps, number)
    return losses


def batches(samples: Samples, batch_size: int) -> Iterator[tuple[int, np.ndarray]]:
    """Epoch after epoch: its number from 0, and the samples of a batch, int64 [b]. Never ends."""
    names = selection.names(samples)
    for epoch in itertools.count():
        order = shuffled(names, samples.task.seed, f"batch/{epoch}")
        for start in range(0, len(order), batch_size):
            yield epoch, order[start : start + batch_size]


def _loaded(samples: Samples, batch_size: int, steps: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Batches and their pixels f32 [b, 3, h, w], decoded by threads while the one before is trained on."""
    pictures = samples.pictures
    assert pictures is not None, "a method that trains through the model is given pictures"
    coming = itertools.islice(batches(samples, batch_size), steps)
    pool = ThreadPoolExecutor(min(4, available_cores()))
    waiting: list[tuple[np.ndarray, list[Future[np.ndarray]]]] = []
    try:
        for epoch, rows in coming:
            waiting.append((rows, [pool.submit(pictures.pixels, row, epoch + 1) for row in rows.tolist()]))
            if len(waiting) > _AHEAD:
                yield _gathered(*waiting.pop(0))
        for batch in waiting:
            yield _gathered(*batch)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)  # Ctrl-C doesn't wait for pictures that nobody needs


def _gathered(rows: np.ndarray, futures: list[Future[np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    return rows, np.stack([future.result() for future in futures])


def _rate(step: int, steps: int, lr: float, min_lr: float) -> float:
    """The learning rate of a step, from 0 (Loshchilov and Hutter, 2017)."""
    return min_lr + (lr - min_lr) * (1 + math.cos(math.pi * step / steps)) / 2


def _check_reached(parameters: Sequence[torch.nn.Parameter]) -> None:
    """Raise ClipkitError for what no gradient comes to: a model may read its weights in a way that we don't know."""
    idle = sum(parameter.grad is None for parameter in parameters)
    if idle:
        said = f"{idle} of the {len(parameters)} arrays to train have no part in what the model computes"
        raise ClipkitError(said, "this kind of tower cannot be adapted so: take another method")


def _not_finite(value: float, step: int, names: list[str]) -> ClipkitError:
    shown = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
    return ClipkitError(
        f"the loss became {value} in step {step + 1}, on {shown}", "lower lr, or look at these pictures"
    )


@contextmanager
def _torch_state(seed: int, device: str) -> Iterator[None]:
    """torch's generators seeded, and all cores its own, until the end."""
    import torch

    before = torch.get_num_threads()
    with torch.random.fork_rng([device] if device.startswith("cuda") else []):
        torch.manual_seed(seed)
        torch.set_num_threads(available_cores())
        try:
            yield
        finally:
            torch.set_num_threads(before)
