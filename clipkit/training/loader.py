"""Batches: pictures decoded by threads ahead of the model, captions drawn and tokenized."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice

import numpy as np
import torch

from clipkit.errors import ClipkitError, RecordError
from clipkit.features.views import augmented
from clipkit.images.decode import decode
from clipkit.models.open_clip import OpenClipEncoder
from clipkit.stream.engine import available_cores
from clipkit.training.examples import Example, Examples
from clipkit.training.settings import Settings

_AHEAD = 3  # batches that are decoded while one is trained on


@dataclass(frozen=True)
class Batch:
    """One process's share of a step. pixels: f32 [b, 3, h, w]. tokens: int64 [b, m, length]; present: bool [b, m].
    negatives: int64 [b, k, length] and negatives_present, or None. after: the position to go on from. For a teacher:
    texts, the first caption of each; teacher_pixels: where its preprocessing is another one, else None.
    """

    names: list[str]
    pixels: torch.Tensor
    tokens: torch.Tensor
    present: torch.Tensor
    after: int
    negatives: torch.Tensor | None = None
    negatives_present: torch.Tensor | None = None
    texts: list[str] = field(default_factory=list)
    teacher_pixels: torch.Tensor | None = None


class Loader:
    """Batches of `size` from a position on, without end; an example that cannot be read is counted, and the next one of
    this process takes its place. captions: how many of an image. failed: what could not be read, by kind of error.
    """

    def __init__(
        self,
        examples: Examples,
        encoder: OpenClipEncoder,
        settings: Settings,
        *,
        size: int,
        first: int = 0,
        rank: int = 0,
        world: int = 1,
        captions: int = 1,
        negatives: bool = False,
    ) -> None:
        self._examples, self._encoder, self._settings = examples, encoder, settings
        self._size, self._captions, self._negatives = size, captions, negatives
        self._walk = examples.walk(first, rank, world)
        self.failed: Counter[str] = Counter()
        self._pool = ThreadPoolExecutor(available_cores())

    def __iter__(self) -> Iterator[Batch]:
        waiting: deque[tuple[int, Example, Future[np.ndarray]]] = deque()
        while True:
            names: list[str] = []
            pictures: list[np.ndarray] = []
            texts: list[str] = []
            bad = 0
            while len(names) < self._size:
                for position, epoch, example in islice(self._walk, max(0, _AHEAD * self._size - len(waiting))):
                    waiting.append((position, example, self._pool.submit(self._pixels, example, epoch)))
                position, example, coming = waiting.popleft()
                try:
                    pictures.append(coming.result())
                except RecordError as error:
                    self.failed[error.kind] += 1
                    if (bad := bad + 1) > len(self._examples):
                        raise ClipkitError("no picture of a whole epoch can be read") from None
                    continue
                names.append(example.name)
                texts.append(example.captions[0].text)
            tokens = self._encoder.tokenize(texts)[:, None]
            present = torch.ones(tokens.shape[:2], dtype=torch.bool)
            yield Batch(names, torch.from_numpy(np.stack(pictures)), tokens, present, position + 1)

    def _pixels(self, example: Example, epoch: int) -> np.ndarray:
        preprocess, settings = self._encoder.identity.preprocess, self._settings
        picture = decode(self._examples.read(example))
        if settings.area < 1:
            view = augmented(example.name, epoch + 1, settings.seed, preprocess.size, (settings.area, 1.0))
            picture = view.make(picture)
        return self._encoder.preprocess(picture)

    def close(self) -> None:
        """Ctrl-C doesn't wait for pictures that nobody needs."""
        self._pool.shutdown(wait=False, cancel_futures=True)
