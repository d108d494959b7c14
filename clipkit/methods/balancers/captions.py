"""The captions of a record that count, and which entries are in each."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from clipkit.errors import RecordError
from clipkit.methods.balancers.entries import Entries
from clipkit.methods.balancers.rows import LANGUAGE_BYTES, pack, sample_ticket
from clipkit.stream.captions import is_negative
from clipkit.stream.fieldnames import mapping_hint, missing_field
from clipkit.stream.hashing import name_of, share
from clipkit.stream.record import Record

_LANGUAGE = re.compile(f"[A-Za-z0-9_-]{{1,{LANGUAGE_BYTES}}}")


def captions_of(record: Record, per: str | None) -> list[str]:
    """The captions that count: `text` alone, or with `per` all of `texts`, before them a `text` that is not there.

    Negative ones are no captions.
    """
    text = record.get("text")
    if text is not None and not isinstance(text, str):
        raise RecordError("bad-field", "field 'text' is not a text")
    listed = record.get("texts") if per else None
    if text is None and listed is None:
        names = ["text"]
        raise RecordError("missing-field", "no field 'text'", mapping_hint(names, record))
    if not isinstance(listed or [], list) or not all(_is_caption(one) for one in listed or ()):
        hint = None
        if isinstance(listed, list) and all(isinstance(one, str) for one in listed):
            hint = """make them objects first: jq -c '.texts |= map({text: .})'"""
        raise RecordError("bad-field", "field 'texts' is not a list of objects with a 'text'", hint)
    found = [one["text"] for one in listed or () if not is_negative(one)]
    return found if text is None or text in found else [text, *found]


def _is_caption(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("text"), str)


def language_of(record: Record) -> str:
    """The language code in `lang`. Raises RecordError."""
    language = record.get("lang")
    if language is None:
        error = missing_field("lang", record)
        raise RecordError(error.kind, error.message, "clipkit score --by lang writes it")
    if not is_language(language):
        raise RecordError("bad-field", f"lang: expected a language code such as 'en', not {language!r}")
    return str(language)


def is_language(value: Any) -> bool:
    """Whether it can be a language code: letters, digits, - and _, as `en`, `pt-BR` and `zho_Hans` are."""
    return isinstance(value, str) and _LANGUAGE.fullmatch(value) is not None


class Reader:
    """What balancing sees of a record: its language and which entries are in each caption that counts."""

    def __init__(self, config: Mapping[str, Any], entries: Entries) -> None:
        self.per, self.per_language, self.seed = config["per"], config["per_language"], config["seed"]
        self.entries = entries

    def language(self, record: Record) -> str:
        return language_of(record) if self.per_language else ""

    def read(self, record: Record) -> tuple[str, list[tuple[bool, set[int]]]]:
        """The language, and of each caption whether it is judged and its entries."""
        language = self.language(record)
        found = [self.entries.find(text, language) for text in captions_of(record, self.per)]
        if self.per != "image":
            return language, [(True, entries) for entries in found]
        some = [number for number, entries in enumerate(found) if entries]
        chosen = some[int(share(name_of(record), self.seed, "balance-caption") * len(some))] if some else 0
        return language, [(number == chosen, entries) for number, entries in enumerate(found)]

    def row(self, record: Record) -> bytes:
        language, captions = self.read(record)
        code = language.encode() if self.per_language else None
        return pack(sample_ticket(name_of(record)), code, captions)
