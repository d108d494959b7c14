"""The captions of a record: `text`, the one in use, and `texts`, all there are, the original among them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final

import msgspec

from clipkit.errors import RecordError
from clipkit.stream.record import Record

ORIGINAL: Final = "original"  # the source of what a record came with
_CONTROLS: Final = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]+")


class Caption(msgspec.Struct, frozen=True, omit_defaults=True):
    """One of a record's `texts`.

    source: who wrote it: `original`, `coca`, `laclip/2`, ... model: which model did, `NAME@digest`. seed: of what was
    drawn. negative: it is not true of the picture, on purpose: losses may push it away, and nothing may take it for a
    caption.
    """

    text: str
    source: str = ""
    model: str = ""
    seed: int | None = None
    negative: bool = False


def captions(record: Record, *, negative: bool = False) -> list[Caption]:
    """All captions of a record, `text` first where `texts` has it not; the negative ones instead if asked for.

    Entries may be plain texts, as other tools write them, and have fields that mean nothing here. Blank ones are left
    out. Raises RecordError `bad-texts`, `bad-field`.
    """
    found = [_caption(entry) for entry in _listed(record)]
    some = [caption for caption in found if caption.negative == negative and caption.text.strip()]
    text = _text(record)
    if not negative and text.strip() and all(text != caption.text for caption in some):
        some.insert(0, _unlisted(text, found))
    return some


def in_use_first(record: Record) -> list[Caption]:
    """Its captions, the one that `text` is before the others; as `captions` besides."""
    found, text = captions(record), record.get("text")
    return sorted(found, key=lambda caption: caption.text != text)


def original_of(found: Iterable[Caption]) -> str:
    """The caption that a record came with: the one so called, else the first that no model wrote; "" without any."""
    own = [caption for caption in found if caption.source == ORIGINAL or not caption.model]
    return next((caption.text for caption in sorted(own, key=lambda one: one.source != ORIGINAL)), "")


def source_of(caption: Caption) -> str:
    """Who wrote a caption. What has neither a source nor a model is `original`: nobody else wrote it."""
    return caption.source or ("" if caption.model else ORIGINAL)


def with_captions(record: Record, new: Iterable[Caption]) -> list[Any]:
    """What `texts` becomes when captions are added: its entries as they are, and `text` before them if it is missing.

    A caption that is there already, word for word, is not added again.
    """
    listed = _listed(record)
    found = [_caption(entry) for entry in listed]
    text, there = _text(record), {(caption.text, caption.negative) for caption in found}
    added = [_unlisted(text, found)] if text.strip() and (text, False) not in there else []
    entries: list[Any] = [*map(msgspec.to_builtins, added), *listed]
    there |= {(caption.text, False) for caption in added}
    for caption in new:
        if (caption.text, caption.negative) not in there:
            there.add((caption.text, caption.negative))
            entries.append(msgspec.to_builtins(caption))
    return entries


def cleaned(text: str) -> str:
    """A text as a model may add it: without control characters and halves of characters, white space made one space."""
    return " ".join(_CONTROLS.sub(" ", text).split())


def is_negative(entry: Any) -> bool:
    """Whether an entry of `texts` is no caption, but what is not true of the picture."""
    return isinstance(entry, dict) and entry.get("negative") is True


def _listed(record: Record) -> list[Any]:
    listed = record.get("texts")
    if listed is not None and not isinstance(listed, list):
        raise RecordError("bad-texts", f"field 'texts' is {type(listed).__name__}, not a list", "see docs/records.md")
    return listed or []


def _text(record: Record) -> str:
    text = record.get("text")
    if text is not None and not isinstance(text, str):
        raise RecordError("bad-field", "field 'text' is not a string")
    return text or ""


def _unlisted(text: str, listed: Iterable[Caption]) -> Caption:
    """The `text` that no entry has. It is what the record came with, unless the list has that already."""
    return Caption(text, "" if any(caption.source == ORIGINAL for caption in listed) else ORIGINAL)


def _caption(entry: Any) -> Caption:
    if isinstance(entry, str):
        return Caption(entry)
    if not isinstance(entry, dict) or not isinstance(entry.get("text"), str):
        raise RecordError("bad-texts", "an entry of 'texts' is neither a text nor has one", "see docs/records.md")
    source, model, seed = entry.get("source"), entry.get("model"), entry.get("seed")
    return Caption(
        entry["text"],
        source if isinstance(source, str) else "",
        model if isinstance(model, str) else "",
        seed if isinstance(seed, int) else None,
        is_negative(entry),
    )
