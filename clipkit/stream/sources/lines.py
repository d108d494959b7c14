"""Lines: records as JSON Lines, and bare references, one a line as `find` prints them."""

from __future__ import annotations

from collections.abc import Iterator

from clipkit.errors import RecordError
from clipkit.stream.record import Record
from clipkit.stream.sources.context import Item, Reading, arrived_failed
from clipkit.stream.sources.opening import Chunks

MAX_LINE = 64 << 20
CHUNK = 1 << 17  # bytes: with the lines in them they stay in a core's cache (1 MiB is a third slower)
_BOM = b"\xef\xbb\xbf"


def split_blocks(chunks: Chunks, end: bytes = b"\n") -> Iterator[list[bytes]]:
    """Lines without their end, those of a chunk together, as soon as they are there.

    At most MAX_LINE + 1 bytes of a line are kept.
    """
    pieces: list[bytes] = []
    held = 0
    while chunk := chunks.read1(CHUNK):
        lines = chunk.split(end)
        if held <= MAX_LINE:
            pieces.append(lines[0])
            held += len(lines[0])
        if len(lines) > 1:
            lines[0] = b"".join(pieces)[: MAX_LINE + 1]
            last = lines.pop()
            yield lines
            pieces, held = [last], len(last)
    if held:
        yield [b"".join(pieces)[: MAX_LINE + 1]]


def split_lines(chunks: Chunks, end: bytes = b"\n") -> Iterator[bytes]:
    """The same, one by one."""
    for lines in split_blocks(chunks, end):
        yield from lines


class LineReader:
    """One line after the other of an input to a record, or to a BadLine; None for a blank one.

    Where the input isn't named so (stdin, a list), lines that are no JSON objects are references.
    """

    def __init__(self, reading: Reading) -> None:
        self._reading = reading
        self._only_records = reading.input.kind != "lines"
        self.null = reading.options.null and not self._only_records
        self._unchecked = bool(reading.renames)

    def item(self, line: bytes, number: int) -> Item | None:
        """What a line is; number: which of the input's, from 1."""
        reading = self._reading
        if number == 1 and line.startswith(_BOM):
            line = line[3:]
        if line.endswith(b"\r") and not self.null:
            line = line[:-1]
        if not line or line.isspace():
            return None
        reading.number = number
        if len(line) > MAX_LINE:
            return reading.bad("line-too-long", f"a line of more than {MAX_LINE >> 20} MiB", text=line)
        if self.null or not (line[0] == 0x7B or line.lstrip()[:1] == b"{"):
            return _not_a_record(reading, line) if self._only_records else _reference(reading, line)
        try:
            record = Record.parse(line, reading.where)
            if reading.renames and not arrived_failed(record):
                if self._unchecked:
                    self._unchecked = False
                    reading.check_mapping(iter(record))
                record.rename(reading.renames)
        except RecordError as error:
            return reading.bad(error.kind, error.message, error.hint, text=line)
        record.origin = reading.origin
        return record


def read_lines(reading: Reading, chunks: Chunks) -> Iterator[Item]:
    """Records of JSON Lines, and references."""
    lines = LineReader(reading)
    for number, line in enumerate(split_lines(chunks, b"\0" if lines.null else b"\n"), 1):
        item = lines.item(line, number)
        if item is not None:
            yield item


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
