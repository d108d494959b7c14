"""Tables: csv and tsv with a header row, and parquet."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator
from typing import Any

from clipkit.errors import ClipkitError, MissingPackage, RecordError
from clipkit.stream.record import KNOWN_FIELDS
from clipkit.stream.sources.context import Item, Reading
from clipkit.stream.sources.lines import MAX_LINE, split_lines
from clipkit.stream.sources.opening import Chunks

MAX_EXPANDED = 1 << 30  # bytes of one text column in a row group, where these come from far fewer
_NUMBERS = frozenset(("width", "height", "n"))
_ROWS = 64  # of a parquet file at once; more aren't faster
_BYTES = 64 << 20  # of such a column in as many rows as are read at once
_PACKED = 20  # times its packed size that a text column may have before it is suspected of repeating a huge value


def read_csv(reading: Reading, chunks: Chunks) -> Iterator[Item]:
    """One record a row. Cells stay strings, but width, height and n, which are numbers; an empty cell of a field
    that clipkit knows is an absent field."""
    csv.field_size_limit(MAX_LINE)
    lines = _TextLines(chunks)
    rows = csv.reader(lines, delimiter="\t" if reading.input.kind == "tsv" else ",", strict=True)
    header = _header(reading, rows)
    while True:
        reading.number, lines.taken = lines.number + 1, []
        try:
            row = next(rows, None)
            if row is None:
                return
            if row:
                yield reading.made(_cells(header, row))
        except csv.Error as error:
            yield reading.bad("bad-row", f"not {reading.input.kind}: {error}", text=b"\n".join(lines.taken))
        except RecordError as error:
            yield reading.bad(error.kind, error.message, error.hint, text=b"\n".join(lines.taken))


class _TextLines:
    """Lines as text for the csv reader, which puts quoted line ends together again; keeps those of the current row."""

    def __init__(self, chunks: Chunks) -> None:
        self._lines = split_lines(chunks)
        self.number = 0
        self.taken: list[bytes] = []

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = next(self._lines)
        self.number += 1
        self.taken.append(line)
        return line.decode("utf-8-sig" if self.number == 1 else "utf-8", "surrogateescape") + "\n"


def _header(reading: Reading, rows: Iterator[list[str]]) -> list[str]:
    reading.number = 1
    try:
        names = next((row for row in rows if row), [])
    except csv.Error as error:
        raise ClipkitError(f"the header row is broken: {error}", where=reading.where) from None
    if names:
        reading.check_mapping(iter(names))
    names = [reading.renames.get(name, name) for name in names]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ClipkitError(f"two columns are named {twice!r}", "rename one of them", where=reading.where)
    if any(not name.isprintable() for name in names):
        raise ClipkitError("the header row is not text", "is it UTF-8?", where=reading.where)
    return names


def _cells(header: list[str], row: list[str]) -> dict[str, Any]:
    if len(row) != len(header):
        message = f"expected {len(header)} cells, as in the header, got {len(row)}"
        raise RecordError("bad-row", message, "a cell that holds the separator is quoted")
    fields: dict[str, Any] = {}
    for name, cell in zip(header, row, strict=True):
        if not cell.isascii():
            try:
                cell.encode("utf-8")
            except UnicodeEncodeError:
                raise RecordError("bad-utf8", f"column {name!r} is not UTF-8", "convert it, e.g. with iconv") from None
        if cell or name not in KNOWN_FIELDS:
            fields[name] = int(cell) if name in _NUMBERS and cell.isdecimal() and cell.isascii() else cell
    return fields


def read_parquet(reading: Reading) -> Iterator[Item]:
    """One record a row, a batch at a time; columns of bytes are left out, a null of a known field is absent."""
    file = _open_parquet(reading)
    try:
        names, dropped = _columns(file.schema_arrow)
        if dropped:
            reading.note(f"{reading.input.shown}: left out columns that hold bytes: {', '.join(dropped)}")
        reading.number = 1
        reading.check_mapping(iter(names))
        reading.number = 0
        renamed = [reading.renames.get(name, name) for name in names]
        for batch in _batches(reading, file, names):
            columns = [batch.column(index).to_pylist() for index in range(len(names))]
            for row in zip(*columns, strict=True):
                reading.number += 1
                fields = zip(renamed, row, strict=True)
                yield reading.made({n: _json(v) for n, v in fields if v is not None or n not in KNOWN_FIELDS})
    except _arrow_errors() as error:
        raise ClipkitError(f"the parquet file is broken: {error}", where=reading.input.shown) from None
    finally:
        file.close()


def _batches(reading: Reading, file: Any, names: list[str]) -> Iterator[Any]:
    """Rows in portions that fit in memory: a value that is stored once may be repeated in every row."""
    for index in range(file.metadata.num_row_groups):
        heaviest = _expanding(file.metadata.row_group(index))
        if heaviest > MAX_EXPANDED:
            hint = "if you trust it, write it with smaller row groups"
            raise ClipkitError(
                f"a column that unpacks to over {MAX_EXPANDED >> 20:,} MiB", hint, where=reading.input.shown
            )
        rows = max(1, min(_ROWS, _BYTES // max(heaviest, 1)))
        yield from file.iter_batches(batch_size=rows, row_groups=[index], columns=names)


def _expanding(group: Any) -> int:
    """Bytes of the largest text column of a row group among those that were packed very tightly; 0 for none."""
    columns = (group.column(index) for index in range(group.num_columns))
    return max(
        (
            column.total_uncompressed_size
            for column in columns
            if column.physical_type == "BYTE_ARRAY"
            and column.total_uncompressed_size > _PACKED * column.total_compressed_size
        ),
        default=0,
    )


def count_parquet(path: str) -> int | None:
    """Rows of a parquet file, from its footer; None if it has none that can be read."""
    try:
        import pyarrow.parquet as parquet

        return int(parquet.read_metadata(path).num_rows)
    except Exception:  # the reader itself says what is wrong with it
        return None


def _open_parquet(reading: Reading) -> Any:
    try:
        import pyarrow.parquet as parquet
    except ImportError:
        raise MissingPackage("pyarrow", "reading parquet", "pip install pyarrow") from None
    try:
        return parquet.ParquetFile(os.path.abspath(reading.input.path))
    except _arrow_errors() as error:
        raise ClipkitError(f"not a parquet file that can be read: {error}", where=reading.input.shown) from None


def _arrow_errors() -> tuple[type[Exception], ...]:
    import pyarrow

    return (pyarrow.ArrowException, OSError, ValueError)


def _columns(schema: Any) -> tuple[list[str], list[str]]:
    """Top-level columns that can be JSON, and those that hold bytes (also inside a struct or list)."""
    names: list[str] = []
    dropped: list[str] = []
    for field in schema:
        (dropped if "binary" in str(field.type) else names).append(field.name)
    return names, dropped


def _json(value: Any) -> Any:
    """A cell as JSON: what JSON knows as it is, not-a-number as null, dates in ISO form, others as text."""
    if value is None or isinstance(value, str | int | bool):
        return value
    if isinstance(value, float):
        return value if value - value == 0 else None
    if isinstance(value, dict):
        return {str(name): _json(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_json(inner) for inner in value]
    return value.isoformat() if hasattr(value, "isoformat") else str(value)
