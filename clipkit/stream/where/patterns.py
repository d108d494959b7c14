"""Regular expressions that cannot take exponentially long."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

MAX_TEXT = 100_000  # characters of a text that is searched
_MANY = 10  # repeats, of all those that lie one in the other, over which they count as without end


class Refused(ValueError):
    """A pattern that is none, or that a text could make run for ever."""


def compile_pattern(text: str) -> re.Pattern[str]:
    """A pattern for `re.search`. Raises Refused.

    Python's matcher goes back over what it tried. That is exponential in the text where a repeat without end holds
    something that can match one stretch in several ways, and for references back to a group. So within a repeat there
    may be no other of varying length, nor alternatives that can start with the same character. What is left takes at
    worst time polynomial in the text, and texts over MAX_TEXT characters are not searched.
    """
    import re._parser as parser  # type: ignore[import-not-found]

    try:
        compiled = re.compile(text)
        tree = parser.parse(text)
    except re.error as error:
        raise Refused(f"no regular expression: {error.msg}" + (f" at {error.pos}" if error.pos else "")) from None
    except (RecursionError, OverflowError):
        raise Refused("too deep a regular expression") from None
    _check(tree, times=1)
    return compiled


def _check(items: Any, *, times: int) -> None:
    """Refuse what is exponential; times: how often it may come, by the repeats that it lies in."""
    within = times > _MANY
    for op, value in items:
        name = str(op)
        if name.startswith("GROUPREF"):
            raise Refused("a reference back to a group can take exponentially long")
        if name in ("MAX_REPEAT", "MIN_REPEAT", "POSSESSIVE_REPEAT"):
            least, most, body = value
            if within and least != most:
                raise Refused("a repeat within a repeat can take exponentially long")
            _check(body, times=times * max(most, 1))
        elif name == "BRANCH":
            if within and _overlap(value[1]):
                raise Refused("alternatives within a repeat that start alike can take exponentially long")
            for branch in value[1]:
                _check(branch, times=times)
        else:
            for inner in _inner(value):
                _check(inner, times=times)


def _inner(value: Any) -> Iterator[Any]:
    """The sub-patterns of a group or an assertion."""
    if hasattr(value, "data"):
        yield value
    elif isinstance(value, tuple):
        for part in value:
            yield from _inner(part)


def _overlap(branches: Any) -> bool:
    """Whether two alternatives can start with one character, in upper or lower case, as far as plain ones tell."""
    seen: set[str] = set()
    for branch in branches:
        starts = _starts(branch)
        if starts is None:
            return True
        starts = {char.casefold() for char in starts}
        if starts & seen:
            return True
        seen |= starts
    return False


def _starts(branch: Any) -> set[str] | None:
    """The characters that a branch can start with; None where that is not a few."""
    if not len(branch):
        return None
    op, value = branch[0]
    if str(op) == "LITERAL":
        return {chr(value)}
    if str(op) == "IN" and all(str(kind) == "LITERAL" for kind, _ in value):
        return {chr(code) for _, code in value}
    return None
