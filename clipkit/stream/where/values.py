"""What compiled conditions do with values whose kind is known only when there is a record."""

from __future__ import annotations

from typing import Any

from clipkit.stream.where.nodes import Kind, kind_of
from clipkit.stream.where.patterns import MAX_TEXT


class Mistyped(Exception):
    """A value of a kind that an operator cannot take. message: says so, with both kinds."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


def _mistyped(value: Any, wanted: str, what: str) -> Mistyped:
    shown = repr(value)
    return Mistyped(f"{what} is {kind_of(value).value} ({shown[:40]}{'...' * (len(shown) > 40)}), not {wanted}")


def number(value: Any, what: str) -> Any:
    """The value, a number."""
    if type(value) is int or type(value) is float:
        return value
    raise _mistyped(value, "a number", what)


def string(value: Any, what: str) -> Any:
    """The value, a string."""
    if type(value) is str:
        return value
    raise _mistyped(value, "a string", what)


def truth(value: Any, what: str) -> Any:
    """The value, true or false."""
    if value is True or value is False:
        return value
    raise _mistyped(value, "true or false", what)


def length(value: Any, what: str) -> int:
    """Characters of a string, or items of a list."""
    if type(value) is str or type(value) is list:
        return len(value)
    raise _mistyped(value, "a string or a list", what)


def order(left: Any, right: Any, what: str) -> int:
    """-1, 0 or 1 as the left is before, at or after the right; both numbers or both strings."""
    kinds = {kind_of(left), kind_of(right)}
    if len(kinds) > 1 or not kinds <= {Kind.NUMBER, Kind.STRING}:
        raise Mistyped(f"{what} compares {kind_of(left).value} with {kind_of(right).value}")
    return bool(left > right) - bool(left < right)


def equal(left: Any, right: Any) -> bool:
    """Equal as JSON: 1 is 1.0, and true is not 1."""
    if kind_of(left) is not kind_of(right):
        return False
    if isinstance(left, list | tuple):
        return len(left) == len(right) and all(map(_equal_or_null, left, right))
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(_equal_or_null(left[name], right[name]) for name in left)
    return bool(left == right)


def _equal_or_null(left: Any, right: Any) -> bool:
    return left is right if left is None or right is None else equal(left, right)


def contains(container: Any, item: Any, what: str, item_what: str) -> bool:
    """Whether an item is in a list, or a string in a string."""
    if type(container) is str:
        return string(item, item_what) in container
    if isinstance(container, list | tuple):
        return any(other is not None and equal(item, other) for other in container)
    raise _mistyped(container, "a list or a string", what)


def found(search: Any, text: str, what: str) -> bool:
    """Whether a pattern is in a text that is not too long to be searched."""
    if len(text) > MAX_TEXT:
        raise Mistyped(f"{what} has {len(text):,} characters: at most {MAX_TEXT:,} are searched")
    return search(text) is not None
