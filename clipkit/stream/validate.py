"""The record contract, checked: what each field that clipkit knows may hold (docs/records.md)."""

from __future__ import annotations

import base64
import binascii
import math
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from clipkit.errors import RecordError
from clipkit.stream.record import Record
from clipkit.stream.sources import BadLine

_SPLITS = ("train", "val", "test")
_STORE_ROW = re.compile(r"[^#]+#[^#:]+:\d+")
_DRIVE = re.compile(r"[A-Za-z]:[\\/]")


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with one record. kind: short and stable, what the summary counts by."""

    where: str
    kind: str
    message: str


class Validation:
    """The problems of a source, as they are found, and their counts. read: records and lines seen so far."""

    def __init__(self) -> None:
        self.read = 0
        self.counts: Counter[str] = Counter()

    def problems(self, items: Iterable[Record | BadLine]) -> Iterator[Problem]:
        """What is wrong in a source, in its order; nothing is changed or left out."""
        for item in items:
            self.read += 1
            if isinstance(item, BadLine):
                found = [Problem(item.where, item.error.kind, item.error.message)]
            else:
                found = check(item)
            self.counts.update(problem.kind for problem in found)
            yield from found

    def summary(self) -> str:
        """One line for people: `1,000 records, 3 problems (bad-id 2, bad-json 1)`."""
        if not self.counts:
            return f"{self.read:,} records, no problems"
        kinds = ", ".join(f"{kind} {count:,}" for kind, count in self.counts.most_common())
        return f"{self.read:,} records, {self.counts.total():,} problems ({kinds})"


def check(record: Record) -> list[Problem]:
    """What is wrong with one record. Fields that clipkit doesn't know are always right, and so is a null."""
    found = []
    for name, rule in _RULES.items():
        try:
            value = record.get(name)
            wrong = None if value is None else rule(value)
        except RecordError as error:
            wrong = error.message
        if wrong is not None:
            found.append(Problem(record.where, f"bad-{name}", f"{name}: {wrong}"))
    return found


# A rule gives what is wrong with a value, or None.
Rule = Callable[[Any], str | None]


def _expected(what: str, value: Any) -> str:
    return f"expected {what}, got {_kind(value)}"


def _kind(value: Any) -> str:
    names = {
        bool: "true or false",
        int: "a number",
        float: "a number",
        str: "a string",
        list: "a list",
        dict: "an object",
    }
    return "null" if value is None else names[type(value)]


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _string(value: Any) -> str | None:
    return None if isinstance(value, str) else _expected("a string", value)


def _id(value: Any) -> str | None:
    if isinstance(value, int) and not isinstance(value, bool):
        return None
    if not isinstance(value, str):
        return _expected("a string", value)
    if not value:
        return "is empty"
    if value.startswith(("/", "\\")) or _DRIVE.match(value):
        return f"{value!r} is an absolute path: it would change with the machine"
    if not unicodedata.is_normalized("NFC", value):
        return f"{value!r} is not in Unicode normal form C: it is compared as if it were"
    return None


def _image(value: Any) -> str | None:
    return "is empty" if value == "" else _string(value)


def _texts(value: Any) -> str | None:
    if not isinstance(value, list):
        return _expected("a list of objects", value)
    for index, entry in enumerate(value):
        if not isinstance(entry, dict):
            return f"[{index}]: {_expected('an object', entry)}"
        if not isinstance(entry.get("text"), str):
            return f"[{index}].text: {_expected('a string', entry.get('text'))}"
        if not isinstance(entry.get("source", ""), str):
            return f"[{index}].source: {_expected('a string', entry['source'])}"
        if not isinstance(entry.get("negative"), bool | None):
            return f"[{index}].negative: {_expected('true or false', entry['negative'])}"
    return None


def _label(value: Any) -> str | None:
    if isinstance(value, list):
        bad = [name for name in value if not isinstance(name, str)]
        return f"expected class names, got {_kind(bad[0])} among them" if bad else None
    return None if isinstance(value, str) else _expected("a class name or a list of them", value)


def _split(value: Any) -> str | None:
    if isinstance(value, str):
        return None if value in _SPLITS else f"expected train, val or test, got {value!r}"
    return _string(value)


def _pred(value: Any) -> str | None:
    if not isinstance(value, dict):
        return _expected("an object", value)
    if value.get("label") is not None and not isinstance(value["label"], str):
        return f"label: {_expected('a class name', value['label'])}"
    named = value.get("labels", [])
    if not (isinstance(named, list) and all(isinstance(name, str) for name in named)):
        return f"labels: {_expected('a list of class names', named)}"
    for name in ("prob", "margin"):
        number = value.get(name, 0)
        if not _number(number) or not 0 <= number <= 1:
            return f"{name}: expected a number from 0 to 1, got {number!r}"
    top = value.get("topk", [])
    if not isinstance(top, list):
        return f"topk: {_expected('a list', top)}"
    if all(isinstance(row, list) and len(row) == 2 and isinstance(row[0], str) and _number(row[1]) for row in top):
        return None
    return "topk: expected pairs of a class name and a number"


def _pixels(value: Any) -> str | None:
    if isinstance(value, int) and not isinstance(value, bool):
        return None if value > 0 else f"expected pixels above 0, got {value}"
    return f"{_expected('a whole number', value)} ({value!r})"


def _count(value: Any) -> str | None:
    if isinstance(value, int) and not isinstance(value, bool):
        return None if value >= 0 else f"expected how often it is packed, got {value}"
    return f"{_expected('a whole number', value)} ({value!r})"


def _scores(value: Any) -> str | None:
    if not isinstance(value, dict):
        return _expected("an object", value)
    for name, score in value.items():
        if score is not None and not _number(score):
            return f"{name}: {_expected('a number or null', score)}"
    return None


def _emb(value: Any) -> str | None:
    if not isinstance(value, dict):
        return _expected("an object", value)
    for name, reference in value.items():
        if isinstance(reference, list):
            return f"{name}: a list of numbers; expected DIR#PART:ROW of a feature store, or base64 of 16-bit floats"
        if not isinstance(reference, str):
            return f"{name}: {_expected('a string', reference)}"
        if not _STORE_ROW.fullmatch(reference) and not _is_inline(reference):
            return f"{name}: neither DIR#PART:ROW of a feature store nor base64 of 16-bit floats"
    return None


def _is_inline(text: str) -> bool:
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return False
    return bool(data) and len(data) % 2 == 0


def _via(value: Any) -> str | None:
    if not isinstance(value, dict):
        return _expected("an object", value)
    for name, maker in value.items():
        if not isinstance(maker, str):
            return f"{name}: {_expected('a string', maker)}"
    return None


def _strings_in(*names: str) -> Rule:
    """A rule for an object that has these fields, all strings."""

    def rule(value: Any) -> str | None:
        if not isinstance(value, dict):
            return _expected("an object", value)
        for name in names:
            if not isinstance(value.get(name), str):
                return f"{name}: {_expected('a string', value.get(name))}"
        return None

    return rule


_RULES: dict[str, Rule] = {
    "id": _id,
    "image": _image,
    "text": _string,
    "texts": _texts,
    "label": _label,
    "split": _split,
    "pred": _pred,
    "width": _pixels,
    "height": _pixels,
    "scores": _scores,
    "emb": _emb,
    "via": _via,
    "n": _count,
    "drop": _strings_in("by", "reason"),
    "error": _strings_in("verb", "type", "message"),
}
