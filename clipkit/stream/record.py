"""A record: one JSON object a line, whose unknown fields keep the very bytes they came with."""

from __future__ import annotations

import hashlib
import math
import re
import unicodedata
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
from msgspec import Raw

from clipkit.errors import RecordError

_fields = msgspec.json.Decoder(dict[str, Raw])
_value = msgspec.json.Decoder()
_encoder = msgspec.json.Encoder()
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
_SURROGATES = re.compile("[\ud800-\udfff]")
_MISSING: Any = object()

# The names that have a meaning (docs/records.md); any other field passes through untouched.
KNOWN_FIELDS = frozenset(
    "id image text texts label split pred width height scores emb via n drop error".split()  # noqa: SIM905
)


def encode_json(value: Any) -> bytes:
    """Compact UTF-8 JSON, key order kept. Raises ValueError on what JSON has no word for: NaN, half a character."""
    _refuse_nonfinite(value)
    return _encoder.encode(value)


def _refuse_nonfinite(value: Any) -> None:
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{value} is not JSON: give null and an error instead")
    elif isinstance(value, dict):
        for inner in value.values():
            _refuse_nonfinite(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            _refuse_nonfinite(inner)


def _writable(value: Any) -> Any:
    """The value itself if JSON can hold it, else a copy with null for NaN, infinities and halves of characters."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, str):
        return value if value.isascii() or _SURROGATES.search(value) is None else None
    if isinstance(value, dict):
        cleaned = {name: _writable(inner) for name, inner in value.items()}
        return cleaned if any(cleaned[name] is not value[name] for name in value) else value
    if isinstance(value, list | tuple):
        items = [_writable(inner) for inner in value]
        return items if any(new is not old for new, old in zip(items, value, strict=True)) else value
    return value


def decode_json(data: bytes | str) -> Any:
    """Any JSON value; raises msgspec.DecodeError (a ValueError) with the byte position."""
    return _value.decode(data)


def name_taken(old: str, new: str, where: str | None = None) -> RecordError:
    """The error of a field that cannot be renamed because another has that name."""
    message = f"cannot rename {old!r}: there is a field {new!r} already"
    return RecordError("field-exists", message, f"rename that, too: {new}_old={new},{new}={old}", where=where)


class Record:
    """A mapping over one JSON object, decoded field by field as it is asked for.

    What nobody reads or writes is copied through byte for byte: `1.10`, `1E400`, a 30-digit integer and escaped
    text come out as they came in. `line` holds the input bytes (without the line end) as long as nothing was
    changed, so that a verb that only selects writes them back untouched.

    where: the place it came from, for messages (`photos.jsonl:17`).
    line: the input line, or None for a record that was made (a file found in a folder) or changed.
    key: what `id` falls back to; set by the source (see `Record.id`).
    origin: the input file it came from (a tar shard, a manifest); "" for stdin and folders.
    """

    __slots__ = ("_digest", "_raw", "_values", "key", "line", "origin", "where")

    def __init__(self, fields: dict[str, Any] | None = None, *, where: str = "", key: str | None = None) -> None:
        self._raw: dict[str, Any] = dict.fromkeys(fields, _MISSING) if fields else {}
        self._values: dict[str, Any] = dict(fields) if fields else {}
        self.line: bytes | None = None
        self.where = where
        self.key = key
        self.origin = ""
        self._digest = b""

    @classmethod
    def parse(cls, line: bytes, where: str = "") -> Record:
        """Read one line holding a JSON object. Raises RecordError (`bad-json`, `bad-utf8`)."""
        try:
            line.decode("utf-8")
            raw = _fields.decode(line)
        except UnicodeDecodeError as error:
            raise RecordError(
                "bad-utf8", f"not UTF-8 (byte {error.start})", "convert it, e.g. with iconv", where=where
            ) from None
        except RecursionError:
            raise RecordError("bad-json", "nested too deeply", where=where) from None
        except msgspec.ValidationError:
            raise RecordError(
                "bad-json", "expected a JSON object", "one object a line, as `jq -c` prints", where=where
            ) from None
        except msgspec.DecodeError as error:
            detail = str(error).removeprefix("JSON is malformed: ")
            hint = "NaN and Infinity are not JSON" if b"NaN" in line or b"Infinity" in line else None
            if _SURROGATE.search(line):
                hint = "half a character, such as \\ud800 alone, is not text"
            raise RecordError("bad-json", f"not JSON: {detail}", hint, where=where) from None
        record = cls(where=where)
        record._raw = raw
        record.line = line
        return record

    @property
    def digest(self) -> bytes:
        """16 bytes over what the input says of it; worked out when first asked for, so before it is changed."""
        if not self._digest:
            self._digest = hashlib.blake2b(self.encode(), digest_size=16).digest()
        return self._digest

    # A mapping, without the parts that would hide cost.
    def __contains__(self, name: str) -> bool:
        return name in self._raw

    def __iter__(self) -> Iterator[str]:
        return iter(self._raw)

    def __len__(self) -> int:
        return len(self._raw)

    def __getitem__(self, name: str) -> Any:
        if name not in self._values:
            self._values[name] = self._decode(name, self._raw[name])
        return self._values[name]

    def _decode(self, name: str, raw: Raw) -> Any:
        try:
            return _value.decode(raw)
        except (msgspec.DecodeError, RecursionError) as error:
            raise RecordError("bad-json", f"field {name!r}: {error}", where=self.where) from None

    def get(self, name: str, default: Any = None) -> Any:
        """The value of a field, decoded; treat what comes back as read-only (assign to change it)."""
        return self[name] if name in self._raw else default

    def __setitem__(self, name: str, value: Any) -> None:
        self._raw[name] = _MISSING
        self._values[name] = value
        self.line = None

    def __delitem__(self, name: str) -> None:
        del self._raw[name]
        self._values.pop(name, None)
        self.line = None

    def rename(self, mapping: dict[str, str]) -> None:
        """Rename fields in place, keeping their order and bytes; a name that is taken is a RecordError."""
        if not any(old in self._raw for old in mapping):
            return
        for old, new in mapping.items():
            if old in self._raw and new in self._raw and new not in mapping:
                raise name_taken(old, new, self.where)
        self._raw = {mapping.get(name, name): raw for name, raw in self._raw.items()}
        self._values = {mapping.get(name, name): value for name, value in self._values.items()}
        self.line = None

    # Dotted names: `scores.clip` is the field `clip` of the object `scores` (a field literally so named wins).
    def lookup(self, dotted: str, default: Any = None) -> Any:
        """The value at a dotted path, or `default` where any step is absent or not an object."""
        if dotted in self._raw or "." not in dotted:
            return self.get(dotted, default)
        head, *rest = dotted.split(".")
        try:
            value = self.get(head, _MISSING)
        except RecordError:  # about something in the object, perhaps not about what is asked for
            return self._inside(head, rest, default)
        for name in rest:
            if not isinstance(value, dict) or name not in value:
                return default
            value = value[name]
        return value

    def _inside(self, head: str, names: list[str], default: Any) -> Any:
        """As `lookup`, with nothing decoded but what is asked for."""
        raw = self._raw[head]
        for name in names:
            try:
                fields = _fields.decode(raw)
            except msgspec.ValidationError:
                return default
            if name not in fields:
                return default
            raw = fields[name]
        return self._decode(".".join([head, *names]), raw)

    def put(self, dotted: str, value: Any) -> None:
        """Set a value at a dotted path of one or two steps; siblings keep their bytes."""
        head, _, rest = dotted.partition(".")
        if not rest or dotted in self._raw:
            self[dotted] = value
            return
        siblings = self._object(head)
        siblings[rest] = value
        self._replace(head, siblings)

    def discard(self, dotted: str) -> bool:
        """Remove a field, or a field of an object field; True if it was there."""
        if dotted in self._raw:
            del self[dotted]
            return True
        head, _, rest = dotted.partition(".")
        if not rest or head not in self._raw or not isinstance(self[head], dict) or rest not in self[head]:
            return False
        siblings = self._object(head)
        del siblings[rest]
        self._replace(head, siblings)
        return True

    def _object(self, name: str) -> dict[str, Any]:
        """The object at a field ({} where absent), one level decoded, its values still the bytes of the input."""
        if self.get(name) is None:
            return {}
        if not isinstance(self[name], dict):
            raise RecordError("bad-field", f"field {name!r} is not an object", where=self.where)
        raw = self._raw[name]
        return dict(self._values[name]) if raw is _MISSING else dict(_fields.decode(raw))

    def _replace(self, name: str, siblings: dict[str, Any]) -> None:
        """Set an object field whose inner values may still be bytes."""
        try:
            self._raw[name] = Raw(encode_json(siblings))
            self._values.pop(name, None)
        except ValueError:  # a number that JSON lacks: kept as it is for `null_unwritable`
            self._raw[name] = _MISSING
            self._values[name] = {k: _value.decode(v) if isinstance(v, Raw) else v for k, v in siblings.items()}
        self.line = None

    def take(self, name: str, other: Record, theirs: str) -> None:
        """Set a field to what another record has, byte for byte; names may be dotted. KeyError where it has none."""
        head, _, rest = theirs.partition(".")
        value = other._raw[theirs] if theirs in other._raw or not rest else other._object(head)[rest]
        if value is _MISSING:
            value = other._values[theirs]
        if not isinstance(value, Raw) or ("." in name and name not in self._raw):
            self.put(name, value)
            return
        self._raw[name] = value
        self._values.pop(name, None)
        self.line = None

    def add(self, name: str, value: Any, via: str) -> None:
        """Write a value that clipkit made, and in `via` who made it."""
        self.add_all({name: value}, {name: via})

    def add_all(self, values: Mapping[str, Any], makers: Mapping[str, str]) -> None:
        """As `add` for each value, at once: an object field that several go into is encoded once."""
        inside: dict[str, dict[str, Any]] = {}
        for name, value in values.items():
            head, _, rest = name.partition(".")
            if rest and name not in self._raw:
                inside.setdefault(head, {})[rest] = value
            else:
                self[name] = value
        for head, fields in inside.items():
            self._replace(head, self._object(head) | fields)
        self._replace("via", self._object("via") | {name: makers[name] for name in values})

    @property
    def id(self) -> str | None:
        """The record's own `id`, else `uid` or `key` in it, else what the source derived; NFC. None if it has none."""
        for name in ("id", "uid", "key"):
            if name in self._raw:
                value = self[name]
                if isinstance(value, str) and value:
                    return value if value.isascii() else unicodedata.normalize("NFC", value)
                if isinstance(value, int) and not isinstance(value, bool):
                    return str(value)
        return self.key

    def encode(self) -> bytes:
        """The record as one line of JSON without the line end; the input's bytes where nothing was changed."""
        if self.line is None:
            out: dict[str, Any] = {}
            for name, raw in self._raw.items():
                if raw is _MISSING:
                    value = self._values[name]
                    _refuse_nonfinite(value)
                    out[name] = value
                else:
                    out[name] = raw
            return _encoder.encode(out)
        return self.line

    def null_unwritable(self) -> list[str]:
        """Replace what JSON cannot hold (NaN, infinities, halves of characters) by null; the fields that held it."""
        changed = []
        for name, raw in self._raw.items():
            if raw is _MISSING:
                cleaned = _writable(self._values[name])
                if cleaned is not self._values[name]:
                    self._values[name] = cleaned
                    changed.append(name)
        return changed

    def restore(self, line: bytes) -> None:
        """Be again what a line holds that this record was read from or encoded as."""
        self._raw, self._values, self.line = _fields.decode(line), {}, line

    def copy(self) -> Record:
        """An independent record with the same fields (values are shared until assigned)."""
        twin = Record(where=self.where, key=self.key)
        twin._raw, twin._values, twin.line = dict(self._raw), dict(self._values), self.line
        twin.origin = self.origin
        return twin

    def to_dict(self) -> dict[str, Any]:
        """Everything decoded."""
        return {name: self[name] for name in self._raw}

    def __repr__(self) -> str:
        return f"Record({self.encode().decode()})"


def image_of(record: Record) -> str:
    """The reference in a record's field `image`. Raises RecordError where that isn't a string."""
    image = record.get("image")
    if not isinstance(image, str) or not image:
        raise RecordError("bad-field", "field 'image' is not a path or URL")
    return image
