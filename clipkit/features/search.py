"""A query of texts and images as one direction, and what is nearest to it."""

from __future__ import annotations

import heapq
import os
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from clipkit.errors import RecordError, UsageError
from clipkit.features.store import Place, Store, metadata_path
from clipkit.references import is_local

if TYPE_CHECKING:
    from clipkit.features.embedder import Embedder

DECIMALS: Final = 6
_BLOCK: Final = 4_096  # rows of a store at once
_DOUBT: Final = 1e-5  # more than what a product in float32 and the rounding may be off
_MOST_WEIGHT: Final = 1_000_000
_WEIGHT: Final = re.compile(r"(\d+(?:\.\d+)?):(?=.)", re.DOTALL)

Hit = tuple[float, str, int]  # score, id, where: the row in its input, or in the store


def terms(plus: Sequence[str], minus: Sequence[str] = ()) -> list[dict[str, Any]]:
    """A query as JSON: {"weight", "text"} or {"weight", "image"} for each term; a term alone has no weight to read."""
    if len(plus) + len(minus) == 1:
        return [_term(text, 1.0) for text in plus]
    return [_weighted(text, sign) for texts, sign in ((plus, 1), (minus, -1)) for text in texts]


def _weighted(text: str, sign: int) -> dict[str, Any]:
    """`2:` before a term is its weight. Raises UsageError for one that no sum can hold beside others."""
    found = _WEIGHT.match(text)
    weight = float(found[1]) if found else 1.0
    if weight > _MOST_WEIGHT:
        raise UsageError(f"a weight of {weight:g} in a query", f"weights go up to {_MOST_WEIGHT:,}")
    return _term(text[found.end() :] if found else text, sign * weight)


def _term(what: str, weight: float) -> dict[str, Any]:
    """`@FILE` is an image, anything else a text. Raises UsageError for an empty one."""
    if not what.strip() or what == "@":
        raise UsageError(f"an empty query: {what!r}", "for example: 'a red bus', 2:bus or @photo.jpg")
    return {"weight": weight} | ({"image": what[1:]} if what.startswith("@") else {"text": what})


def direction(embedder: Embedder, terms: Sequence[dict[str, Any]]) -> np.ndarray:
    """The unit vector f64 [d] of a query: the weighted sum of its terms' unit features.

    Raises UsageError for an image that cannot be read and for terms that cancel out.
    """
    total = np.zeros(embedder.encoder.identity.dim)
    for each in terms:
        row = embedder.encode_texts([each["text"]])[0] if "text" in each else _image(embedder, each["image"])
        total += each["weight"] * row.astype(np.float64)
    length = np.sqrt(np.einsum("d,d->", total, total))
    if length < _DOUBT:
        raise UsageError("the terms of the query cancel each other out", "leave one of them out")
    direction: np.ndarray = total / length
    return direction


def _image(embedder: Embedder, path: str) -> np.ndarray:
    """Its unit features f32 [d]. A path is relative to the current folder, as any that a user types."""
    try:
        item = embedder.prepare_image(os.path.abspath(path) if is_local(path) else path)
    except RecordError as error:
        raise UsageError(f"the query's image: {error.message}") from None
    row: np.ndarray = embedder.encode([item]).joint[0]
    return row


def similarity(row: np.ndarray, query: np.ndarray) -> float:
    """Cosine of unit vectors f32 [d] and f64 [d], rounded: the same whoever else is in the batch."""
    return round(float(np.einsum("d,d->", row.astype(np.float64), query)), DECIMALS)


def best(hits: Iterable[Hit], count: int, least: float | None) -> list[Hit]:
    """The `count` best of those that reach `least`, best first; equal scores by id. Holds no more than these."""
    enough = (hit for hit in hits if least is None or hit[0] >= least)
    return heapq.nsmallest(count, enough, key=lambda hit: (-hit[0], hit[1]))


def search_store(store: Store, query: np.ndarray, count: int, least: float | None) -> list[Hit]:
    """As `best` of all images in a store. Exact, one block of rows in memory at a time.

    Blocks are multiplied in float32; what comes near the limit is worked out again in float64, row by row.
    """
    narrow = query.astype(np.float32)
    found: list[Hit] = []
    floor = -np.inf if least is None else least
    for ids, rows in store.blocks("image", _BLOCK):
        scores = rows @ narrow
        near = np.flatnonzero(scores >= floor - _DOUBT)
        if len(near) > count:  # of these only the best can be among the best of all
            scores = scores[near]
            near = near[scores >= np.partition(scores, -count)[-count] - 2 * _DOUBT]
        found = best((*found, *((similarity(rows[n], query), ids[n], -1) for n in near)), count, least)
        if len(found) == count:
            floor = max(floor, found[-1][0])
    return found


def lines(store: Store, ids: Sequence[str]) -> Iterator[bytes]:
    """The records of a store by id, in this order, as `Store.records` gives them."""
    wanted = set(ids)
    places = {
        name: Place(part, row)
        for part in range(store.parts)
        for row, name in enumerate(store.ids(part))
        if name in wanted
    }
    held = dict(_read(store, places.values()))
    return (held[places[name]] for name in ids)


def _read(store: Store, places: Collection[Place]) -> Iterator[tuple[Place, bytes]]:
    """The row groups that hold them, one at a time."""
    import pyarrow.parquet

    for part in sorted({place.part for place in places}):
        rows = sorted(place.row for place in places if place.part == part)
        with pyarrow.parquet.ParquetFile(metadata_path(store.folder, part)) as file:
            start = 0
            for group in range(file.num_row_groups):
                end = start + file.metadata.row_group(group).num_rows
                here = [row for row in rows if start <= row < end]
                if here:
                    column = file.read_row_group(group, columns=["record"]).column("record")
                    yield from ((Place(part, row), column[row - start].as_py().encode()) for row in here)
                start = end
