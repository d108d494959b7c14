"""Batches: pictures decoded by threads ahead of the model, captions drawn and tokenized."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Final, TypeAlias

import numpy as np
import torch

from clipkit.errors import ClipkitError, RecordError
from clipkit.images.transform import normalise
from clipkit.models.base import Preprocess
from clipkit.models.open_clip import OpenClipEncoder
from clipkit.stream.engine import available_cores
from clipkit.training.examples import Example, Examples
from clipkit.training.pictures import Pictures, cost
from clipkit.training.settings import Settings
from clipkit.training.texts import Shown, Texts

_AHEAD: Final = 3  # batches that are made while one is trained on
_AHEAD_BYTES: Final = 512 << 20  # of these batches, at most, but for one; and again of examples on their way
_KEPT_BYTES: Final = 1 << 30  # of decoded pictures, in all processes of a machine
_TOGETHER: Final = 8  # examples that one thread decodes before it looks for others
_TOKENIZED: Final = 50_000  # texts


@dataclass(frozen=True)
class Batch:
    """One process's share of a step, b pictures; tensors are on the CPU, pinned where the model is on a GPU.

    pixels: f32 [b, 3, h, w]. tokens: int64 [b, m, length], m captions of each picture, which begin with the words of
    their source where there are any; present: bool [b, m], which of these are there; the first is. texts: the first
    caption of each, without such words. negatives: int64 [b, k, length] and negatives_present bool [b, k], or None.
    teacher_pixels: what a teacher with a preprocessing of its own sees, the same crops, f32 [b, 3, h, w], else None.
    after: the position that this process goes on from. failed: id -> kind of error, of the examples that could not be
    used and gave way to these.
    """

    names: list[str]
    texts: list[str]
    pixels: torch.Tensor
    tokens: torch.Tensor
    present: torch.Tensor
    after: int
    negatives: torch.Tensor | None = None
    negatives_present: torch.Tensor | None = None
    teacher_pixels: torch.Tensor | None = None
    failed: dict[str, str] = field(default_factory=dict)


_Made: TypeAlias = tuple[Shown, list[np.ndarray]] | RecordError  # captions and pixels, or why there are none


@dataclass(slots=True)
class _Coming:
    """Examples on their way into batches: what one thread does at once, as to begin costs what a small picture does."""

    examples: list[tuple[int, int, Example]]
    bytes: int
    made: Future[list[_Made]]


class Loader:
    """Batches of `size` from a position on, without end. They depend on the examples, the settings and `world`, not on
    threads or on where it began.

    The next example of this process takes the place of one that cannot be used; where none of a whole epoch can be,
    that is a ClipkitError.

    captions: of a picture, at most. negatives: of what it is not, likewise. teacher: the preprocessing of a model that
    sees the same pictures.
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
        negatives: int = 0,
        teacher: Preprocess | None = None,
    ) -> None:
        preprocess = encoder.identity.preprocess
        self._preprocesses = [preprocess] if teacher in (None, preprocess) else [preprocess, teacher]
        self._examples, self._size, self._world = examples, size, world
        self._captions, self._negatives = captions, negatives
        self._texts = Texts(settings, captions, negatives)
        again = settings.steps * settings.batch_size > len(examples)
        keep = _KEPT_BYTES // world if again else 0
        self._pictures = Pictures(examples, self._preprocesses, settings, keep=keep)
        self._tokens = _Tokens(encoder)
        self._pinned = encoder.device.startswith("cuda")
        self._walk = examples.walk(first, rank, world)
        self._waiting: deque[_Coming] = deque()
        self._on_the_way = 0  # bytes of what waits
        self._ready = self._made()
        self._pool = ThreadPoolExecutor(available_cores(), "decode")
        self._maker = ThreadPoolExecutor(1, "batches")

    def __iter__(self) -> Iterator[Batch]:
        coming: deque[Future[Batch]] = deque()
        bytes_a_batch = self._size * 4 * cost(self._preprocesses)
        ahead = max(1, min(_AHEAD, _AHEAD_BYTES // bytes_a_batch))
        while True:
            while len(coming) < ahead:
                coming.append(self._maker.submit(self._next))
            yield coming.popleft().result()

    def close(self) -> None:
        """Ctrl-C doesn't wait for pictures that nobody needs."""
        self._maker.shutdown(wait=False, cancel_futures=True)
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _next(self) -> Batch:
        """The next batch, made while the one before is trained on: always in the same thread."""
        names: list[str] = []
        shown: list[Shown] = []
        pictures: list[list[np.ndarray]] = []
        failed: dict[str, str] = {}
        after = bad = 0
        while len(names) < self._size:
            position, name, made = next(self._ready)
            after = position + 1
            if isinstance(made, RecordError):
                failed[name] = made.kind
                if (bad := bad + 1) * self._world > len(self._examples):
                    hint = f"the last one: {name}: {made.message}"
                    raise ClipkitError("no example of a whole epoch can be used", hint)
                continue
            bad = 0
            names.append(name)
            shown.append(made[0])
            pictures.append(made[1])
        return replace(self._batch(names, shown, pictures, after), failed=failed)

    def _made(self) -> Iterator[tuple[int, str, _Made]]:
        """Position, name and what was made of one example after the other."""
        while True:
            self._look_ahead()
            coming = self._waiting.popleft()
            for (position, _, example), made in zip(coming.examples, coming.made.result(), strict=True):
                yield position, example.name, made
            self._on_the_way -= coming.bytes

    def _look_ahead(self) -> None:
        """Set threads to work on what the next batch needs, but not on more than memory holds."""
        most = max(1, self._size // _TOGETHER)
        while not self._waiting or (len(self._waiting) < most and self._on_the_way < _AHEAD_BYTES):
            examples = list(islice(self._walk, min(_TOGETHER, self._size)))
            size = sum(len(example.image) for _, _, example in examples if isinstance(example.image, bytes))
            size += len(examples) * cost(self._preprocesses)
            self._on_the_way += size
            self._waiting.append(_Coming(examples, size, self._pool.submit(self._make, examples)))

    def _make(self, examples: list[tuple[int, int, Example]]) -> list[_Made]:
        made: list[_Made] = []
        for _, epoch, example in examples:
            try:
                if example.problem is not None:
                    raise example.problem
                made.append((self._texts.shown(example, epoch), self._pictures.seen(example, epoch)))
            except RecordError as error:
                made.append(error)
        return made

    def _batch(self, names: list[str], shown: list[Shown], pictures: list[list[np.ndarray]], after: int) -> Batch:
        pixels = [
            self._tensor(preprocess, rows)
            for preprocess, rows in zip(self._preprocesses, zip(*pictures, strict=True), strict=True)
        ]
        tokens, present = self._tokens([one.spoken for one in shown], self._captions)
        negatives = negatives_present = None
        if self._negatives:
            negatives, negatives_present = self._tokens([one.negatives for one in shown], self._negatives)
        return Batch(
            names,
            [one.texts[0] for one in shown],
            pixels[0],
            tokens,
            present,
            after,
            negatives,
            negatives_present,
            pixels[1] if len(pixels) > 1 else None,
        )

    def _tensor(self, preprocess: Preprocess, rows: Sequence[np.ndarray]) -> torch.Tensor:
        pixels = torch.empty((len(rows), 3, *preprocess.size), pin_memory=self._pinned)
        for row, out in zip(rows, pixels.numpy(), strict=True):
            normalise(preprocess, row, out)
        return pixels


class _Tokens:
    """A model's tokens of texts, kept: captions come again in every epoch."""

    def __init__(self, encoder: OpenClipEncoder) -> None:
        self._encoder = encoder
        self._rows: dict[str, torch.Tensor] = {}

    def __call__(self, texts: Sequence[Sequence[str]], places: int) -> tuple[torch.Tensor, torch.Tensor]:
        """int64 [n, places, length], and bool [n, places]: which places hold a text. The others are zeros."""
        new = list(dict.fromkeys(text for some in texts for text in some if text not in self._rows))
        if len(self._rows) + len(new) > _TOKENIZED:
            self._rows.clear()
            new = list(dict.fromkeys(text for some in texts for text in some))
        if new:
            self._rows.update(zip(new, self._encoder.tokenize(new), strict=True))
        tokens = torch.zeros((len(texts), places, self._encoder.context_length), dtype=torch.int64)
        present = torch.zeros((len(texts), places), dtype=torch.bool)
        for number, some in enumerate(texts):
            for place, text in enumerate(some):
                tokens[number, place] = self._rows[text]
                present[number, place] = True
        return tokens, present
