"""Lines: records as JSON Lines, and bare references, one a line as `find` prints them."""

from __future__ import annotations

from collections.abc import Iterator

from clipkit.errors import RecordError
from clipkit.stream.record import Record
from clipkit.stream.sources.context import Item, Reading, arrived_failed
from clipkit.stream.sources.opening import CHUNK, Chunks

MAX_LINE = 64 << 20
_BOM = b"\xef\xbb\xbf"


def split_lines(chunks: Chunks, end: bytes = b"\n") -> Iterator[bytes]:
    """Lines without their end, as soon as they are there; at most MAX_LINE + 1 bytes of one are kept."""
    pieces: list[bytes] = []
    held = 0
    while chunk := chunks.read1(CHUNK):
        first, *others = chunk.split(end)
        if held <= MAX_LINE:
            pieces.append(first)
            held += len(first)
        if others:
            yield b"".join(pieces)[: MAX_LINE + 1]
            last = others.pop()
            yield from others
            pieces, held = [last], len(last)
    if held:
        yield b"".join(pieces)[: MAX_LINE + 1]


def read_lines(reading: Reading, chunks: Chunks) -> Iterator[Item]:
    """Records of JSON Lines; where the input isn't named so (stdin, a list), other lines are references."""
    only_records = reading.input.kind != "lines"
    null = reading.options.null and not only_records
    renames, shown, origin = reading.renames, reading.input.shown, reading.origin
    unchecked = bool(renames)
    number = 0
    for line in split_lines(chunks, b"\0" if null else b"\n"):
        number += 1
        if number == 1 and line.startswith(_BOM):
            line = line[3:]
        if line.endswith(b"\r") and not null:
            line = line[:-1]
        if not line or line.isspace():
            continue
        reading.number = number
        if len(line) > MAX_LINE:
            yield reading.bad("line-too-long", f"a line of more than {MAX_LINE >> 20} MiB", text=line)
            continue
        if null or not (line[0] == 0x7B or line.lstrip()[:1] == b"{"):
            yield _not_a_record(reading, line) if only_records else _reference(reading, line)
            continue
        try:
            record = Record.parse(line, f"{shown}:{number}")
            if renames and not arrived_failed(record):
                if unchecked:
                    unchecked = False
                    reading.check_mapping(iter(record))
                record.rename(renames)
        except RecordError as error:
            yield reading.bad(error.kind, error.message, error.hint, text=line)
            continue
        record.origin = origin
        yield record


def _not_a_record(reading: Reading, line: bytes) -> Item:
    start = line[:40].decode("utf-8", "replace")
    return reading.bad(
        "bad-json", f"expected a JSON object, got {start!r}", "one object a line, as `jq -c` prints", text=line
    )


def _reference(reading: Reading, line: bytes) -> Item:
    try:
        reference = line.decode("utf-8")
    except UnicodeDecodeError as error:
        return reading.bad("bad-utf8", f"a reference that is not UTF-8 (byte {error.start})", text=line)
    if "\0" in reference:
        return reading.bad("bad-name", "NULs in one reference", "-0 reads what find -print0 prints", text=line)
    record = Record({"id": reading.places.id_of(reference), "image": reference}, where=reading.where)
    record.origin = reading.origin
    return record
