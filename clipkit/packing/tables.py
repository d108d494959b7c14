"""Records as tables: csv and parquet. Images stay where they are; the column `image` refers to them.

A table needs to know its columns before its first row. Since a pack is sorted by id, every record is seen before one is
written, and `Table.see` looks at them then.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

from clipkit.errors import ClipkitError
from clipkit.packing.samples import NOTE, Sample
from clipkit.packing.shards import Format, Writer, sync
from clipkit.stream.record import Record, encode_json

_MOST_COLUMNS = 2_000
_ROWS = 5_000  # of a parquet row group; what of a shard is held in memory
_FIRST = ("id", "image", "text", "label", "split", "width", "height")
_INT64 = 1 << 63
_BUFFER = 1 << 20


def cells(record: Record) -> Iterator[tuple[str, Any]]:
    """A record's values by column: those of an object one by one, as `scores.clip`. Nothing for null."""
    for name in record:
        value = record[name]
        if name == NOTE or value is None:
            continue
        if isinstance(value, dict):
            inside = ((f"{name}.{inner}", below) for inner, below in value.items())
            yield from ((dotted, below) for dotted, below in inside if below is not None and dotted not in record)
        else:
            yield name, value


def _kind(value: Any) -> str:
    """What a cell is: str, bool, int or float; json for lists, objects and numbers that neither type holds."""
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int):
        return "int" if -_INT64 <= value < _INT64 else "json"
    if isinstance(value, float):
        return "float" if math.isfinite(value) else "json"
    return "str" if isinstance(value, str) else "json"


class Table(Format):
    """A format with columns, the same in all shards: the fields that any record has. A field of objects is a column a
    member, `scores.clip`; lists, and fields of several kinds, are JSON text."""

    with_images: ClassVar[bool] = False

    def __init__(self) -> None:
        self._seen: dict[str, set[str]] = {}

    def see(self, record: Record) -> None:
        for name, value in cells(record):
            self._seen.setdefault(name, set()).add(_kind(value))
        if len(self._seen) > _MOST_COLUMNS:
            raise ClipkitError(
                f"more than {_MOST_COLUMNS:,} columns: an object's members are columns of their own",
                "take out what need not be in the table: clipkit set --drop FIELD",
            )

    @property
    def columns(self) -> dict[str, str]:
        """Name -> kind; known fields first, the rest by name, whatever the order of the input."""
        kinds = {**self._seen, "id": {"str"}}
        names = sorted(kinds, key=lambda name: (_FIRST.index(name) if name in _FIRST else len(_FIRST), name))
        return {name: _common(kinds[name]) for name in names}

    @property
    def seed(self) -> str:
        return encode_json(self.columns).decode()


def _common(kinds: set[str]) -> str:
    if len(kinds) == 1:
        return next(iter(kinds))
    return "float" if kinds == {"int", "float"} else "json"


def _row(columns: dict[str, str], sample: Sample) -> dict[str, Any]:
    record = Record.parse(sample.json)
    found = dict(cells(record)) | {"id": sample.id}
    return {name: encode_json(value).decode() if columns[name] == "json" else value for name, value in found.items()}


class Csv(Table):
    """UTF-8, comma, a header row; an absent value is an empty cell."""

    suffix = ".csv"

    def open(self, path: Path) -> Writer:
        return _CsvWriter(path, self.columns)


class _CsvWriter:
    def __init__(self, path: Path, columns: dict[str, str]) -> None:
        self._columns = columns
        self._file = io.TextIOWrapper(open(path, "wb", buffering=_BUFFER), encoding="utf-8", newline="")
        self._csv = csv.writer(self._file, lineterminator="\n")
        self._csv.writerow(columns)

    def add(self, key: str, sample: Sample, image: bytes | None) -> None:
        row = _row(self._columns, sample)
        self._csv.writerow([_cell(row.get(name)) for name in self._columns])

    def finish(self) -> None:
        sync(self._file)

    def close(self) -> None:
        self._file.close()


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else encode_json(value).decode()


class Parquet(Table):
    """One row group for each 5,000 records, zstd; an absent value is null."""

    suffix = ".parquet"

    def open(self, path: Path) -> Writer:
        return _ParquetWriter(path, self.columns)


class _ParquetWriter:
    def __init__(self, path: Path, columns: dict[str, str]) -> None:
        import pyarrow as pa
        import pyarrow.parquet

        types = {"str": pa.string(), "json": pa.string(), "bool": pa.bool_(), "int": pa.int64(), "float": pa.float64()}
        self._columns = columns
        self._schema = pa.schema([(name, types[kind]) for name, kind in columns.items()])
        self._file = open(path, "wb", buffering=_BUFFER)
        self._writer = pyarrow.parquet.ParquetWriter(self._file, self._schema, compression="zstd")
        self._rows: list[dict[str, Any]] = []

    def add(self, key: str, sample: Sample, image: bytes | None) -> None:
        row = _row(self._columns, sample)
        floats = {name: float(value) for name, value in row.items() if self._columns[name] == "float"}
        self._rows.append(row | floats)
        if len(self._rows) == _ROWS:
            self._write()

    def _write(self) -> None:
        import pyarrow as pa

        if self._rows:
            self._writer.write_table(pa.Table.from_pylist(self._rows, schema=self._schema))
            self._rows = []

    def finish(self) -> None:
        self._write()
        self._writer.close()
        sync(self._file)

    def close(self) -> None:
        self._rows = []
        self._file.close()
