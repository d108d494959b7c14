"""Rows: of a JSON line only the fields that are asked for, decoded at once into a struct made for them."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

_OWN = ("id", "uid", "key", "error", "image")  # attributes of these names; all others are numbered
_NEVER = Annotated[int, msgspec.Meta(ge=1, le=0)]  # a field that must not be there: no value fits


class Columns:
    """The fields of a row. A value of another type than asked for fails to decode (msgspec.ValidationError).

    Each row has `id`, `uid` and `key` (str or None), `error` (always None: a record that came with one does not decode)
    and `image` (None where there is none, else whatever).
    """

    def __init__(self) -> None:
        self._top: dict[str, Any] = dict.fromkeys(("id", "uid", "key"), str | None)
        self._top |= {"error": None, "image": msgspec.Raw}

    def want(self, dotted: str, wanted: Any) -> tuple[str, ...] | None:
        """Have rows hold a field; the attributes that lead to it, each None where absent.

        None where that cannot be: one of its own fields as another type, or a field both whole and in parts.
        """
        names = dotted.split(".")
        if names[0] in _OWN:
            if dotted not in _OWN or dotted == "error" or wanted not in (str | None, Any):
                return None
            self._top[dotted] = str | None
            return (dotted,)
        if len(names) > 1:  # a field with dots in its name would win: it has to be a record's own business
            self._top[dotted] = _NEVER
        return self._place(self._top, names, wanted)

    def inside(self, field: str, name: str, wanted: Any) -> tuple[str, ...] | None:
        """As `want`, for a name with dots in it within an object field: `via`, `scores.clip`."""
        return self._place(self._top, [field, name], wanted)

    def _place(self, fields: dict[str, Any], names: list[str], wanted: Any) -> tuple[str, ...] | None:
        name, *rest = names
        if not rest:
            if fields.setdefault(name, wanted) != wanted:
                return None
            return (f"f{list(fields).index(name)}",)
        inner = fields.setdefault(name, {})
        if not isinstance(inner, dict):
            return None
        path = self._place(inner, rest, wanted)
        return path and (f"f{list(fields).index(name)}", *path)

    def row(self) -> type[Any]:
        """The struct: fields that nobody asked for are skipped when it is decoded."""
        return _struct(self._top, _OWN)


def _struct(fields: dict[str, Any], own: tuple[str, ...] = ()) -> type[Any]:
    attributes = [name if name in own else f"f{position}" for position, name in enumerate(fields)]
    types = [_struct(kind) | None if isinstance(kind, dict) else kind for kind in fields.values()]
    return msgspec.defstruct(
        "Row",
        [(attribute, kind, None) for attribute, kind in zip(attributes, types, strict=True)],
        rename=dict(zip(attributes, fields, strict=True)),
        gc=False,
    )
