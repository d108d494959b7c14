"""Which place the true caption takes among the captions of other images."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import numpy as np

from clipkit.errors import RecordError
from clipkit.methods.scorers.base import TEXT, Remembered, Sample, SetScorer
from clipkit.methods.scorers.clip import cosine
from clipkit.stream.hashing import ticket

BATCH = 256
_NEAR = 1e-5  # a sum of some hundred float32 products is off by less
_DIGEST = 16
_SEED = 0


class RetrievalRank(SetScorer):
    """`scores.retrieval_rank`, 1 is best: 1 + the number of captions in its batch that resemble the image more.

    Captions that are the same, character for character, don't count against it. Batches are no accident of the run:
    records are put in the order of a hash of their ids and divided into batches as equal as can be, about `rank_batch`
    large (256 by default), with no small rest at the end. So a record's rank depends on which records there are, not on
    their order. Recall@k is the share of ranks up to k.
    """

    name: ClassVar[str] = "retrieval-rank"
    takes: ClassVar[tuple[str, ...]] = ("rank_batch",)
    needs: ClassVar[frozenset[str]] = frozenset({TEXT})
    views: ClassVar[tuple[str, ...]] = ("plain",)
    encodes_text: ClassVar[bool] = True
    outputs: tuple[str, ...] = ("scores.retrieval_rank",)

    def __init__(self, options: Mapping[str, Any]) -> None:
        super().__init__(options)
        self._size: int = options.get("rank_batch") or BATCH

    @property
    def identity(self) -> str:
        return f"{self.name}@{self._size}"

    def remember(self, sample: Sample) -> bytes:
        """A digest of the caption, then both features f32 [d]."""
        assert sample.text is not None and sample.text_features is not None
        if sample.record.id is None:
            raise RecordError("missing-id", "batches are made by id", "add a field id, uid or key")
        caption = hashlib.blake2b(sample.text.encode("utf-8", "surrogatepass"), digest_size=_DIGEST).digest()
        return caption + sample.features["plain"].tobytes() + sample.text_features.tobytes()

    def learn(self, remembered: Remembered) -> None:
        self._ranks = array("I", bytes(4 * len(remembered)))
        for numbers in batches(remembered.ids(), self._size):
            rows = list(remembered.take(numbers))
            captions = [row[:_DIGEST] for row in rows]
            both = np.frombuffer(b"".join(row[_DIGEST:] for row in rows), np.float32).reshape(len(rows), 2, -1)
            for number, rank in zip(numbers, ranks(both[:, 0], both[:, 1], captions), strict=True):
                self._ranks[number] = rank

    def score_of(self, number: int) -> dict[str, Any]:
        return {self.outputs[0]: self._ranks[number]}


def batches(ids: Iterator[str], size: int) -> Iterator[list[int]]:
    """The numbers 0 to n - 1 in the order of the hashed ids, in round(n / size) parts (1 at least) of nearly one size.

    16 bytes of memory a record.
    """
    hashes = np.fromiter((int.from_bytes(ticket(name, _SEED, RetrievalRank.name)[:8]) for name in ids), np.uint64)
    order = np.argsort(hashes, kind="stable")
    for part in np.array_split(order, max(1, round(len(order) / size))):
        if len(part):
            yield part.tolist()


def ranks(images: np.ndarray, texts: np.ndarray, captions: list[bytes]) -> list[int]:
    """For each unit image row f32 [n, d] the rank of its own text, row for row, among all texts.

    The products are f32; where one lies within 1e-5 of the true caption's, both are summed in f64, so that the ranks
    don't depend on how the batch was multiplied.
    """
    found = []
    for n, row in enumerate(images @ texts.T):
        margin = row.astype(np.float64) - cosine(images[n], texts[n])
        above = margin > _NEAR
        for other in np.flatnonzero(np.abs(margin) <= _NEAR):
            above[other] = cosine(images[n], texts[other]) > cosine(images[n], texts[n])
        found.append(1 + sum(captions[other] != captions[n] for other in np.flatnonzero(above)))
    return found
