"""The captions of a record: `text`, the one in use, and `texts`, all there are, the original among them."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from clipkit.errors import RecordError
from clipkit.stream.record import Record

ORIGINAL: Final = "original"  # the source of what a record came with


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

    Entries may be plain texts, as other tools write them. Blank ones are left out. Raises RecordError `bad-texts`.
    """
    listed = record.get("texts")
    if listed is not None and not isinstance(listed, list):
        raise RecordError("bad-texts", f"field 'texts' is {type(listed).__name__}, not a list", "see docs/records.md")
    found = [_caption(entry) for entry in listed or ()]
    some = [caption for caption in found if caption.negative == negative and caption.text.strip()]
    text = record.get("text")
    if not negative and isinstance(text, str) and text.strip() and all(text != caption.text for caption in some):
        some.insert(0, Caption(text, "" if found else ORIGINAL))
    return some


def _caption(entry: Any) -> Caption:
    if isinstance(entry, str):
        return Caption(entry)
    try:
        return msgspec.convert(entry, Caption)
    except msgspec.ValidationError as error:
        raise RecordError("bad-texts", f"an entry of 'texts' is no caption: {error}", "see docs/records.md") from None
