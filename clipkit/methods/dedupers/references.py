"""What records are compared with besides each other: a test set's features, an earlier run's records."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from clipkit.errors import ClipkitError, RecordError, UsageError
from clipkit.features.store import Store, kind_of
from clipkit.methods.dedupers.base import Deduper, Look
from clipkit.methods.dedupers.table import Table
from clipkit.stream.record import Record
from clipkit.stream.sources import BadLine, SourceOptions, open_source
from clipkit.stream.spool import Rows

if TYPE_CHECKING:
    from clipkit.images.opener import Opener
    from clipkit.models.base import Identity

_NO_VALUE = float("nan")


class LeftOut:
    """References that cannot be read, or came with an error: they protect nothing. count: how many there were."""

    def __init__(self, *, strict: bool) -> None:
        """strict: the first one stops the run."""
        self.count = 0
        self._strict = strict
        self._first = ""  # reason

    def failed(self, error: RecordError, where: str) -> None:
        """One that cannot be read. Raises the error, if strict."""
        error.where = error.where or where
        if self._strict:
            raise error
        self._add(str(error))

    def came_failed(self, where: str) -> None:
        """One that came with an error."""
        self._add(f"{where}: it came with one")

    def _add(self, reason: str) -> None:
        self.count += 1
        self._first = self._first or reason

    @property
    def notices(self) -> list[str]:
        """How many were left out, and the first reason."""
        if not self.count:
            return []
        one = self.count == 1
        said = "1 record has an error and protects" if one else f"{self.count:,} records have an error and protect"
        return [f"--against: {said} nothing; the first: {self._first}"]


class References:
    """Feature stores, compared by the methods that encode, and sources of records, compared by the others.

    left_out: records with an error, new or old; known once `rows` was called.
    """

    def __init__(
        self,
        paths: Sequence[str],
        methods: Sequence[Deduper],
        table: Table,
        identity: Identity | None,
        opener: Opener | None,
        root: str | None,
        *,
        strict: bool = False,
    ) -> None:
        """Check what was named; nothing large is read yet.

        identity: of the model that encodes the records, if one does. strict: one that cannot be read stops the run.
        Raises ClipkitError for what is not there, cannot be compared by any of the methods, or holds the features of
        another model.
        """
        self._methods, self._table, self._opener, self._root = methods, table, opener, root
        self.left_out = LeftOut(strict=strict)
        self._stores: list[Store] = []
        self._sources: list[str] = []
        for path in paths:
            if not Path(path).exists():
                raise ClipkitError(f"--against {path}: there is no such file or folder")
            if kind_of(Path(path)):
                self._stores.append(_store(path, identity))
            elif all(method.encodes for method in methods):
                hint = f"run: clipkit embed {path} -o STORE"
                raise UsageError(f"--against {path} is no feature store, which --by semantic needs", hint)
            else:
                self._sources.append(path)

    def rows(self) -> Rows:
        """Their rows, to be closed. Raises RecordError for a record that cannot be read, if strict."""
        rows = Rows()
        nothing = [b""] * len(self._methods)
        for store in self._stores:
            for ids, block in store.blocks("image"):
                for name, features in zip(ids, block, strict=True):
                    rows.append(name, self._table.pack(_NO_VALUE, nothing, _finite(features)))
        for path in self._sources:
            for name, keys in self._keys(path):
                rows.append(name, self._table.pack(_NO_VALUE, keys, None))
        return rows

    def _keys(self, path: str) -> Iterator[tuple[str, list[bytes]]]:
        """The id and the keys of each record that has any."""
        for record in open_source(SourceOptions(paths=(path,), dup_ids="suffix", root=self._root)):
            if isinstance(record, Record) and record.get("error") is not None:
                self.left_out.came_failed(record.where)
                continue
            try:
                if isinstance(record, BadLine):
                    raise record.error
                keys = self._keys_of(record)
            except RecordError as error:
                self.left_out.failed(error, record.where)
                continue
            if any(keys):
                yield record.id or "", keys

    def _keys_of(self, record: Record) -> list[bytes]:
        look = Look(record, self._opener)
        return [b"" if method.encodes else method.key(look) or b"" for method in self._methods]


def _store(path: str, identity: Identity | None) -> Store:
    if identity is None:
        raise UsageError(f"--against {path} holds features, and none are compared", "add semantic to --by")
    store = Store(path)
    store.require(identity)
    store.dim("image")  # says so where it holds texts alone
    return store


def _finite(features: np.ndarray) -> np.ndarray:
    """A damaged row is one of zeros: near nothing."""
    return features if np.isfinite(features).all() else np.zeros_like(features)
