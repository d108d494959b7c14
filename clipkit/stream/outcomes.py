"""What is written of an outcome: an entry in the journal and its key, a record that carries its error on."""

from __future__ import annotations

import hashlib
from typing import Any

from clipkit.errors import RecordError
from clipkit.stream.journal import Entry
from clipkit.stream.record import Record
from clipkit.stream.sources import BadLine
from clipkit.stream.stage import Drop, Emit, Row, Stage


class _Passed:
    """The outcome of a record that arrived with an error."""


PASSED = _Passed()


def key_of(stage: Stage, record: Record) -> bytes:
    """What must be equal for an outcome to be reused: the id, the record's bytes, the stamp of its image."""
    digest = hashlib.blake2b(record.encode(), digest_size=16)
    digest.update(b"\0" + (record.id or "").encode("utf-8", "surrogatepass") + b"\0" + stage.stamp(record).encode())
    return digest.digest()


def remembered(entry: Entry) -> Row | RecordError:
    """What `journalled` made of a stage's first pass, as it was."""
    return RecordError(*entry.detail) if entry.kind == "f" else Row(entry.lines[0][1])


def journalled(outcome: Any) -> Entry:
    """An outcome as the journal keeps it. A value that JSON cannot hold is the record's failure."""
    if isinstance(outcome, RecordError):
        return Entry("f", [], [outcome.kind, outcome.message, outcome.hint])
    if isinstance(outcome, Drop):
        return Entry("d", [], [outcome.by, outcome.reason, outcome.value, outcome.limit])
    if isinstance(outcome, Row):
        return Entry("r", [("", outcome.data)])
    records = outcome.records if isinstance(outcome, Emit) else [("", outcome)]
    try:
        return Entry("k", [(name, record.encode()) for name, record in records])
    except ValueError:
        fields, bad = next((fields, record) for _, record in records if (fields := record.null_unwritable()))
        message = f"{', '.join(fields)}: a number that is not finite, or a text that is not UTF-8"
        return Entry("f", [("", bad.encode())], ["not-json", message, None])


def failed_record(item: Record | BadLine, error: RecordError, verb: str) -> Record:
    """The record that carries an error on; a line that is no record goes into its field `line`."""
    message = error.message
    if isinstance(item, Record):
        marked = item.copy()
    elif item.record is not None:
        marked = item.record.copy()
    else:
        marked = Record({"line": item.text.decode("utf-8", "backslashreplace")})
        message = f"{item.where}: {message}"
    marked["error"] = {"verb": verb, "type": error.kind, "message": message}
    return marked
