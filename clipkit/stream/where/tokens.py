"""A condition's text cut into tokens, and the error that points into it."""

from __future__ import annotations

import re

import msgspec

from clipkit.errors import UsageError

_TOKEN = re.compile(
    r"""\s*(?:
    (?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)
  | (?P<string>'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")
  | (?P<quoted>`[^`]+`)
  | (?P<name>[^\W\d]\w*(?:\.\w+)*)
  | (?P<op><=|>=|==|!=|=>|=<|\*\*|&&|\|\||[-+*/%<>=~()\[\],!])
  | (?P<end>\Z)
  | (?P<other>.)
)""",
    re.VERBOSE | re.DOTALL,
)
_KEYWORDS = frozenset(("and", "or", "not", "in", "true", "false", "null"))
_SHOWN = 60  # characters of a condition before and after where it goes wrong


class WhereError(UsageError):
    """A condition that cannot be read; the message shows it with a ^ where it goes wrong."""

    def __init__(self, message: str, text: str, at: int, hint: str | None = None) -> None:
        before, after = text[:at], text[at:]
        before = f"...{before[-_SHOWN:]}" if len(before) > _SHOWN else before
        after = f"{after[:_SHOWN]}..." if len(after) > _SHOWN else after
        super().__init__(f"{message} at ^: {before}^{after}", hint)
        self.at = at


class Token(msgspec.Struct, frozen=True):
    kind: str  # number, string, quoted, name, word (and, or, ...), op, end
    text: str
    start: int
    end: int


def tokens(text: str) -> list[Token]:
    found: list[Token] = []
    at = 0
    while not found or found[-1].kind != "end":
        match = _TOKEN.match(text, at)
        assert match is not None and match.lastgroup is not None
        kind, start = match.lastgroup, match.start(match.lastgroup)
        token = Token("word" if match[kind] in _KEYWORDS else kind, match[kind], start, match.end())
        if kind == "other":
            hint = "the quote has no end" if token.text in "'\"`" else None
            raise WhereError(f"{token.text!r} has no meaning here", text, start, hint)
        if kind == "number" and text[match.end() : match.end() + 1].isidentifier():
            raise WhereError("a number runs into a name", text, match.end(), "a field so named goes into backquotes")
        found.append(token)
        at = match.end()
    return found


def unquote(text: str) -> str:
    """A string without its quotes. A backslash is one only before a quote or another: '\\d' stays as it is."""
    return re.sub(r"\\([\\'\"])", r"\1", text[1:-1])
