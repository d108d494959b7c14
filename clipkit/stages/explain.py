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

    Steps are in the order in which they wrote into the record. `by` is None where nothing says who it was.
    """
    via = record.get("via") or {}
    steps = [{"field": name, "value": record.lookup(name), "by": by} for name, by in via.items()]
    for field in ("pred", "scores"):
        steps += _unsigned(record, field, via)
    steps += [
        {"field": "texts", "value": entry.get("text"), "by": entry.get("source")} for entry in record.get("texts") or []
    ]
    drop, error = record.get("drop"), record.get("error")
    if drop:
        steps.append({"field": "drop", "value": {k: v for k, v in drop.items() if k != "by"}, "by": drop.get("by")})
    if error:
        steps.append(
            {"field": "error", "value": {k: v for k, v in error.items() if k != "verb"}, "by": error.get("verb")}
        )
    given = {name: record[name] for name in _GIVEN if name in record and name not in via}
    return {"id": record.id, "where": record.where, "input": given, "steps": steps}


def _unsigned(record: Record, field: str, via: dict[str, str]) -> list[dict[str, Any]]:
    """Values of `pred` or `scores` that `via` doesn't name."""
    value = record.get(field)
    if not value or field in via:
        return []
    if field == "pred":
        return [{"field": "pred", "value": value, "by": None}]
    names = (name for name in value if f"{field}.{name}" not in via)
    return [{"field": f"{field}.{name}", "value": value[name], "by": None} for name in names]


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
        yield _row(step["field"], step["value"], step["by"] or "not said")


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
