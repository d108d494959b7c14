"""Which reader reads which kind of input; each is imported when it is needed."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any

from clipkit.errors import ClipkitError, UsageError
from clipkit.references import is_local, split_member
from clipkit.stream.sources.context import Input, Item, Reading
from clipkit.stream.sources.inputs import kind_of_bytes
from clipkit.stream.sources.lines import read_lines
from clipkit.stream.sources.opening import CHUNK, Chunks, open_chunks

# What makes of an input's lines something to pass on: `read_lines`, or one that decides them as it reads.
Lines = Callable[[Reading, Chunks], Iterator[Any]]


def read(reading: Reading, lines: Lines = read_lines) -> Iterator[Any]:
    """The records of one input, ids not yet settled; of JSON Lines and references, whatever `lines` gives."""
    match reading.input.kind:
        case "folder" | "image":
            from clipkit.stream.sources.folders import read_folder, read_image_file

            return read_folder(reading) if reading.input.kind == "folder" else read_image_file(reading)
        case "tar":
            from clipkit.stream.sources.tars import read_tar

            return read_tar(reading)
        case "parquet":
            from clipkit.stream.sources.tables import read_parquet

            return read_parquet(reading)
        case "reference":
            return _read_reference(reading)
        case _:
            return _read_text(reading, lines)


def count_items(inputs: list[Input]) -> int | None:
    """How many items the inputs hold, where that costs next to nothing to know."""
    total = 0
    for item in inputs:
        if item.kind in ("image", "reference"):
            count: int | None = 1
        else:
            count = _count_rows(item.path) if item.kind == "parquet" else None
        if count is None:
            return None
        total += count
    return total


def _count_rows(path: str) -> int | None:
    from clipkit.stream.sources.tables import count_parquet

    return count_parquet(path)


def _read_reference(reading: Reading) -> Iterator[Item]:
    """The one record of a URL or of a tar member that was named itself."""
    image = reading.input.path
    if is_local(image):
        shard, member = split_member(image)
        image = f"{reading.places.reference_to(shard)}#{member}"
    reading.number = 1
    yield reading.made({"id": reading.places.id_of(image), "image": image}, where=reading.input.shown)


def _read_text(reading: Reading, lines: Lines) -> Iterator[Any]:
    """Inputs that are text, perhaps packed, read from front to end."""
    path, kind = reading.input.path, reading.input.kind
    try:
        opened: Any = nullcontext(_stdin(reading)) if path == "-" else open(path, "rb")
    except OSError as error:
        raise ClipkitError(f"cannot be read: {error.strerror}", where=path) from None
    with opened as stream:
        if path == "-" and stream.isatty():
            reading.note("reading records from the terminal; Ctrl-D ends")
        chunks = open_chunks(stream, reading)
        if kind == "lines" and not os.path.isfile(path):
            head = stream.peek(512)[:512]
            if reading.options.null:  # its NULs are ends of names, which need not be UTF-8
                head = head.replace(b"\0", b"\n")
            _refuse_binary(reading, kind_of_bytes(head))
            _refuse_table(reading, head)
        if kind in ("csv", "tsv"):
            from clipkit.stream.sources.tables import read_csv

            yield from read_csv(reading, chunks)
        elif kind == "json":
            yield from _read_json(reading, chunks)
        else:
            yield from lines(reading, chunks)


def _stdin(reading: Reading) -> Any:
    stream: Any = reading.stdin
    if stream is None:
        if sys.stdin is None:
            raise UsageError("standard input is closed", "name a file, or pipe records in")
        stream = sys.stdin.buffer
    return stream if hasattr(stream, "peek") else io.BufferedReader(stream)


def _refuse_binary(reading: Reading, kind: str) -> None:
    """A pipe can carry text only: the other kinds are referred to by path, or are not read from front to end."""
    if kind != "lines":
        named = "binary data" if kind == "unknown" else f"{'an' if kind == 'image' else 'a'} {kind}"
        message = f"{reading.input.shown} holds {named}, expected records or references"
        raise UsageError(message, "save it and name the file")


def _refuse_table(reading: Reading, head: bytes) -> None:
    """A pipe has no name that says it is a CSV or TSV; a first line with all the fields of `--map` does."""
    first, wanted = head.partition(b"\n")[0].decode("utf-8-sig", "replace"), set(reading.options.mapping.values())
    for kind, between in (("csv", ","), ("tsv", "\t")):
        if wanted and between in first and wanted <= {name.strip(' "\r') for name in first.split(between)}:
            raise UsageError(f"{reading.input.shown} holds a {kind}", "save it and name the file")


class _Replayed:
    """Chunks with some put back in front."""

    def __init__(self, head: bytes, chunks: Chunks) -> None:
        self._head = head
        self._chunks = chunks

    def read1(self, size: int) -> bytes:
        head, self._head = self._head, b""
        return head or self._chunks.read1(size)


def _read_json(reading: Reading, chunks: Chunks) -> Iterator[Item]:
    """A `.json`: COCO captions, or JSON Lines by another name."""
    from clipkit.stream.sources.coco import is_lines, read_coco

    head = b""
    while b"\n" not in head[-CHUNK:] and len(head) < CHUNK and (chunk := chunks.read1(CHUNK)):
        head += chunk
    replayed = _Replayed(head, chunks)
    return read_lines(reading, replayed) if is_lines(head) else read_coco(reading, replayed)
