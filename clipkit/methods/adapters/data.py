"""What an adapter is fitted on: features and labels, and what the model says of the classes by itself."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol, TypeAlias

import numpy as np

from clipkit.stream.hashing import ticket

if TYPE_CHECKING:
    from clipkit.models.base import Encoder

Space: TypeAlias = Literal["joint", "backbone"]
JOINT: Final = "joint"
BACKBONE: Final = "backbone"


@dataclass(frozen=True)
class Features:
    """Unit features of n images. joint: f32 [n, D]. backbone: f32 [n, B], those before the joint projection.

    The latter are None where nobody asked for them, or the model has none.
    """

    joint: np.ndarray
    backbone: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.joint)

    def of(self, space: str) -> np.ndarray:
        """Those of one space, f32 [n, d]. Raises ValueError where they are not there."""
        if space == JOINT:
            return self.joint
        if self.backbone is None:
            raise ValueError("these features hold none of the backbone")
        return self.backbone

    def take(self, rows: np.ndarray | slice) -> Features:
        """Some of the images, by number (int [m]), mask (bool [n]) or slice."""
        return Features(self.joint[rows], None if self.backbone is None else self.backbone[rows])


@dataclass(frozen=True)
class Task:
    """The classes, and what the model says of them without having seen any image.

    classes: C names in order. text: unit features f32 [C, D] of their prompts. scale, bias: of the model's logits
    (`Encoder.logit_scale`, `logit_bias`). space: which image features the adapter works on (zero-shot logits are always
    of the joint ones). prompts: the texts that stand for each class, as `clipkit.text.classifier.prompts` gives them.
    encoder: for methods that need the model; else None. seed: of all that is random in a fit.
    """

    classes: tuple[str, ...]
    text: np.ndarray
    scale: float
    bias: float | None = None
    space: Space = "joint"
    prompts: tuple[tuple[str, ...], ...] = ()
    encoder: Encoder | None = None
    seed: int = 0

    def zero_shot(self, features: Features) -> np.ndarray:
        """Logits f64 [n, C]: scale * f . t + bias (Radford et al., 2021)."""
        return self.scale * product(features.joint, self.text) + (self.bias or 0.0)


class Pictures(Protocol):
    """The pictures behind samples, for methods that train through the model."""

    def __len__(self) -> int: ...

    def pixels(self, row: int, view: int = 0) -> np.ndarray:
        """The model's input f32 [3, h, w] of a picture. view: 0 is the picture as it is; every other number is a crop
        and perhaps a mirroring of its own, the same in every run."""


@dataclass(frozen=True)
class Samples:
    """Labelled images. features: of n * views images, those of one sample next to each other, the plain picture first;
    None in methods that look at pictures alone. labels: int64 [n], numbers of classes.

    names: of each sample, by which random choices are made, so that they don't hang on the order.
    """

    task: Task
    labels: np.ndarray
    features: Features | None = None
    views: int = 1
    pictures: Pictures | None = None
    names: Sequence[str] = ()

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def counts(self) -> np.ndarray:
        """Samples of each class, int64 [C]."""
        return np.bincount(self.labels, minlength=len(self.task.classes))

    @property
    def plain(self) -> Features:
        """The features of the pictures as they are, n rows."""
        assert self.features is not None
        return self.features.take(slice(None, None, self.views)) if self.views > 1 else self.features

    def every_view(self) -> tuple[np.ndarray, np.ndarray]:
        """Each view as a sample of its own: features of the task's space f32 [n * views, d], and labels."""
        assert self.features is not None
        return self.features.of(self.task.space), np.repeat(self.labels, self.views)

    def mean_view(self) -> np.ndarray:
        """The mean over each sample's views in the task's space, made unit again: f32 [n, d]."""
        assert self.features is not None
        rows = self.features.of(self.task.space)
        if self.views == 1:
            return rows
        mean = rows.reshape(len(self), self.views, -1).mean(axis=1, dtype=np.float64)
        return unit(mean)

    def take(self, rows: np.ndarray) -> Samples:
        """Some of the samples, by number, int64 [m]."""
        features = self.features
        if features is not None:
            features = features.take((rows[:, None] * self.views + np.arange(self.views)).ravel())
        pictures = None if self.pictures is None else SomePictures(self.pictures, rows)
        names = [self.names[row] for row in rows] if self.names else ()
        return replace(self, labels=self.labels[rows], features=features, pictures=pictures, names=names)


@dataclass(frozen=True)
class SomePictures:
    """Some of the pictures, by number."""

    whole: Pictures
    rows: np.ndarray

    def __len__(self) -> int:
        return len(self.rows)

    def pixels(self, row: int, view: int = 0) -> np.ndarray:
        return self.whole.pixels(int(self.rows[row]), view)


def product(rows: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """rows [n, d] times weights [c, d], f64 [n, c].

    A row on its own is multiplied without BLAS: its result depends neither on a batch nor on the number of threads.
    So what streams asks for one row at a time, and what is fitted or measured asks for many.
    """
    wide: np.ndarray
    if len(rows) == 1:
        wide = np.einsum("cd,d->c", _wide(weights), _wide(rows[0]))[None]
        return wide
    wide = _wide(rows) @ _wide(weights).T
    return wide


def blocks(count: int, size: int) -> Iterator[slice]:
    """Slices of `size`, the last perhaps of fewer, that go over `count` rows."""
    return (slice(start, start + size) for start in range(0, count, size))


def among_others(own: np.ndarray, before: np.ndarray) -> np.ndarray:
    """An adapter's logits [n, c] so that they can stand beside zero-shot logits of other classes; f64 [n, c].

    before: the zero-shot logits [n, c] of the same classes. A row is moved by what makes the sum of its exponentials
    that of `before`: which of its classes it is, the adapter says, and whether it is one of them at all, the model by
    itself does. The scale of an adapter's logits says nothing of the latter: as they are, they would win every image.
    """
    moved: np.ndarray = own - _log_mass(own) + _log_mass(before)
    return moved


def _log_mass(logits: np.ndarray) -> np.ndarray:
    """log sum exp of each row, [n, 1]."""
    top = logits.max(axis=1, keepdims=True)
    mass: np.ndarray = top + np.log(np.exp(logits - top).sum(axis=1, keepdims=True))
    return mass


def unit(rows: np.ndarray) -> np.ndarray:
    """Rows [n, d] divided by their lengths, f32; a row of zeros stays."""
    length = np.linalg.norm(rows.astype(np.float64), axis=-1, keepdims=True)
    made: np.ndarray = (rows / np.where(length > 0, length, 1.0)).astype(np.float32)
    return made


def shuffled(names: Sequence[str], seed: int, purpose: str) -> np.ndarray:
    """The numbers of all names, int64 [n], in an order by hash."""
    drawn = [ticket(name, seed, purpose) for name in names]
    return np.array(sorted(range(len(names)), key=drawn.__getitem__), np.int64)


def _wide(array: Any) -> np.ndarray:
    return np.asarray(array, np.float64)
