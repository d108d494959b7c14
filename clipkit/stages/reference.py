"""A set of what is wanted, to which clusters are held: its features, from a store or encoded."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from clipkit.errors import ClipkitError, RecordError, UsageError
from clipkit.features.centroids import Centroids
from clipkit.features.rows import FeatureRows
from clipkit.features.store import Store, kind_of
from clipkit.stream.engine import available_cores, execute
from clipkit.stream.outcomes import PASSED
from clipkit.stream.record import Record
from clipkit.stream.sources import BadLine, SourceOptions, open_source
from clipkit.stream.stage import Row, Stage


class Reference:
    """Feature stores, and sources of records that are yet to be encoded.

    sources: the latter. left_out: records that could not be read or encoded, once `encoded` was iterated.
    """

    def __init__(self, paths: Sequence[str], model: str, by: str) -> None:
        """model: whose features are wanted, as `str(identity)`. by: image or text.

        Raises ClipkitError for what is not there, or holds the features of another model.
        """
        self._by = by
        self.sources: list[str] = []
        self._stores: list[Store] = []
        self.left_out = 0
        self._first = ""
        for path in paths:
            if not Path(path).exists():
                raise ClipkitError(f"--reference {path}: there is no such file or folder")
            if not kind_of(Path(path)):
                self.sources.append(path)
                continue
            store = Store(path)
            if store.model.digest != model.rpartition("@")[2]:
                from clipkit.models.names import again

                hint = f"run: clipkit embed SOURCE -o {path} --model {again(model.rpartition('@')[0])}"
                raise ClipkitError(f"--reference {path} has features of {store}, not of {model}", hint)
            store.dim(by)  # says so where it holds none
            self._stores.append(store)

    @property
    def notices(self) -> list[str]:
        """How many were left out, and the first reason."""
        if not self.left_out:
            return []
        one = self.left_out == 1
        said = "1 record has an error and counts" if one else f"{self.left_out:,} records have an error and count"
        return [f"--reference: {said} for nothing; the first: {self._first}"]

    def needs_store(self, flag: str) -> UsageError:
        """The error of a source where nothing is encoded."""
        path = self.sources[0]
        hint = f"run: clipkit embed {path} -o STORE, with the same --model"
        return UsageError(f"--reference {path} is no feature store, and with {flag} nothing is encoded", hint)

    def hits(self, centroids: Centroids, encoded: Iterable[np.ndarray]) -> np.ndarray:
        """How many items of the stores and of `encoded` (unit rows f32 [n, d]) are nearest to each centroid, int64 [k].

        Raises ClipkitError where there is none at all.
        """
        hits = np.zeros(len(centroids), np.int64)
        stored = (rows for store in self._stores for _, rows in store.blocks(self._by, 8192))
        for rows in itertools.chain(stored, encoded):
            sound = rows[np.isfinite(rows).all(axis=1) & rows.any(axis=1)]
            if len(sound):
                hits += np.bincount(centroids.assign(sound)[0], minlength=len(centroids))
        if not hits.any():
            hint = f"the first: {self._first}" if self._first else "name a folder of images or a store"
            raise ClipkitError("--reference holds nothing that could be compared", hint)
        return hits

    def encoded(self, path: str, stage: Stage, layout: FeatureRows, strict: bool) -> Iterator[np.ndarray]:
        """The features of a source, f32 [n, d] in pieces, by a stage whose rows are laid out so.

        strict: a record that fails stops all (RecordError); else it is left out.
        """
        root, confine = stage.runtime.get("root"), bool(stage.runtime.get("confine"))
        source = open_source(SourceOptions(paths=(path,), dup_ids="suffix", root=root, confine=confine))
        workers = stage.runtime.get("workers") or available_cores()
        for item, outcome in execute(stage, source, workers=workers, decide=_decided):
            if isinstance(outcome, Row):
                yield np.frombuffer(outcome.data, layout.row)["features"]
                continue
            error = outcome if isinstance(outcome, RecordError) else RecordError("error", "it came with one")
            error.where = error.where or item.where
            if strict:
                raise error
            self.left_out += 1
            self._first = self._first or str(error)


def _decided(item: Record | BadLine) -> Any:
    if isinstance(item, BadLine):
        return item.error
    return PASSED if item.get("error") is not None else None
