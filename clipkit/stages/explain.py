"""What each step did to one record, as the record itself tells it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from typing import Any

from clipkit.errors import ClipkitError
from clipkit.stream.record import Record, encode_json
from clipkit.stream.sources import BadLine
from clipkit.stream.table import Column

_REMEMBERED = 10_000  # ids kept to suggest one from
_GIVEN = ("image", "text", "label", "split", "width", "height")


def find(items: Iterable[Record | BadLine], name: str) -> Iterator[Record]:
    """The records with this id (one, unless files of several steps are read). Raises ClipkitError if there is none."""
    ids: set[str] = set()
    found = False
    for item in items:
        record = item.record if isinstance(item, BadLine) else item
        if record is None or record.id is None:
            continue
        if record.id == name:
            found = True
            yield record
        elif not found and len(ids) < _REMEMBERED:
            ids.add(record.id)
    if not found:
        close = difflib.get_close_matches(name, sorted(ids), n=3)
        raise ClipkitError(f"no record has the id {name!r}", f"did you mean {' or '.join(close)}?" if close else None)


def describe(record: Record) -> dict[str, Any]:
    """A record's story: `id`, `where`, what it came with (`input`), and `steps`, each with field, value and who (`by`).

    Steps are in the order in which they wrote into the record. `by` is None where nothing says who it was. A field of
    a shape that clipkit doesn't write is shown as it is.
    """
    via = record.get("via")
    makers = via if isinstance(via, dict) else {}
    steps = [_step(name, record.lookup(name), by) for name, by in makers.items()]
    if via and not makers:
        steps.append(_step("via", via))
    for field in ("pred", "scores"):
        steps += _unsigned(record, field, makers)
    steps += _texts(record.get("texts"))
    for field, who in (("drop", "by"), ("error", "verb")):
        value = record.get(field)
        if isinstance(value, dict):
            steps.append(_step(field, {name: inner for name, inner in value.items() if name != who}, value.get(who)))
        elif value:
            steps.append(_step(field, value))
    given = {name: record[name] for name in _GIVEN if name in record and name not in makers}
    return {"id": record.id, "where": record.where, "input": given, "steps": steps}


def _step(field: str, value: Any, by: Any = None) -> dict[str, Any]:
    return {"field": field, "value": value, "by": by}


def _texts(texts: Any) -> list[dict[str, Any]]:
    entries = texts if isinstance(texts, list) else [texts] if texts else []
    return [
        _step("texts", entry.get("text"), entry.get("source")) if isinstance(entry, dict) else _step("texts", entry)
        for entry in entries
    ]


def _unsigned(record: Record, field: str, makers: dict[str, Any]) -> list[dict[str, Any]]:
    """Values of `pred` or `scores` that `via` doesn't name."""
    value = record.get(field)
    if value in (None, {}) or field in makers:
        return []
    if field == "pred" or not isinstance(value, dict):
        return [_step(field, value)]
    return [_step(f"{field}.{name}", inner) for name, inner in value.items() if f"{field}.{name}" not in makers]


STORY_COLUMNS = (
    Column("field", 14, lambda row: str(row["field"])),
    Column("value", 50, lambda row: str(row["value"])),
    Column("by", 32, lambda row: str(row["by"])),
)


def rows(story: dict[str, Any]) -> Iterator[bytes]:
    """A story as the rows of STORY_COLUMNS, JSON."""
    yield _row("id", story["id"], story["where"])
    for name, value in story["input"].items():
        yield _row(name, value, "as it came")
    for step in story["steps"]:
        yield _row(step["field"], step["value"], str(step["by"] or "not said"))


def _row(field: str, value: Any, by: str) -> bytes:
    return encode_json({"field": field, "value": _short(value), "by": by})


def _short(value: Any) -> str:
    """A value as a few words: the parts of a prediction, a drop or an error that one looks for."""
    if not isinstance(value, dict):
        return str(value)
    if "message" in value:
        return f"{value.get('type')}: {value['message']}"
    if "reason" in value:
        limit = "" if value.get("limit") is None else f", limit {value['limit']}"
        return f"{value['reason']} (value {value.get('value')}{limit})"
    return ", ".join(f"{name} {inner}" for name, inner in value.items() if not isinstance(inner, list))
