"""The rarest concepts of a set: a list of the kind of Let It Wag! (Udandarao et al., 2024)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from clipkit.errors import ClipkitError, UsageError
from clipkit.methods.concepts.counts import Counts
from clipkit.stream.record import Record, decode_json
from clipkit.stream.sink import FileSink


def tail(counts: Counts, by: str | None, *, count: int | None = None, below: int | None = None) -> Iterator[Record]:
    """The rarest concepts, ascending, ties by name: `count` of them, or those counted fewer than `below` times.

    by: text, image or both; None is the last of these that was counted. frequency: the count over all records.
    Raises UsageError, and ClipkitError where no records were counted.
    """
    if not counts.records:
        raise ClipkitError("these counts are of no records", "count a set first: clipkit concepts count")
    ranked = sorted(counts.by(by or counts.sides[-1]).items(), key=lambda pair: (pair[1], pair[0]))
    if below is not None:
        ranked = [pair for pair in ranked if pair[1] < below]
    return (
        Record({"id": name, "concept": name, "count": seen, "frequency": seen / counts.records})
        for name, seen in ranked[:count]
    )


class NameSink:
    """Writes of each record its concept, one a line: a file that `--labels @FILE.txt` reads."""

    def __init__(self, path: str | Path) -> None:
        self._file = FileSink(path)
        self.flush, self.commit, self.abort = self._file.flush, self._file.commit, self._file.abort

    def write(self, line: bytes, origin: str) -> None:
        name = decode_json(line)["concept"]
        if name.startswith("#") or len(name.splitlines()) > 1:
            raise UsageError(f"{name!r} cannot be a line of a .txt file", "leave -o out, or name a .jsonl")
        self._file.write(name.encode(), origin)
