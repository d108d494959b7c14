"""A text's sentences, by a plain rule."""

from __future__ import annotations

import re
from typing import Final

_SHORT: Final = frozenset("approx ca cf dr e.g fig i.e inc jr mr mrs ms mt nr prof sr st vol vs".split())  # noqa: SIM905
_CLOSING: Final = "\"'”’»)]"
_END: Final = re.compile(rf"[.!?…]+[{re.escape(_CLOSING)}]*(?=\s)|[。！？]+[」』）]*|\n\s*")
_MARK: Final = re.compile(r"(?:[-*•–]|\d{1,2}[.)])\s+")  # of a list


def split(text: str) -> list[str]:
    """The sentences of a text, in order.

    One ends at `.`, `!`, `?` or `…` (closing quotes and brackets go with it) before white space, unless what follows
    starts in lower case, or the dot stands after an initial (J.) or one of some abbreviations (Dr., e.g.); at the full
    stops, question and exclamation marks of Chinese and Japanese; and where a line ends. Marks of lists at the start
    are left out, and so is what holds no letter.
    """
    found, start = [], 0
    for end in _END.finditer(text):
        if _ends(text, end):
            found.append(text[start : end.end()])
            start = end.end()
    cleaned = (_MARK.sub("", " ".join(sentence.split()), count=1).strip() for sentence in [*found, text[start:]])
    return [sentence for sentence in cleaned if any(map(str.isalpha, sentence))]


def _ends(text: str, end: re.Match[str]) -> bool:
    if end[0][0] not in ".!?…":
        return True
    after = text[end.end() :].lstrip(f" \t{_CLOSING}“‘«([")
    if after[:1].islower():
        return False
    word = text[: end.start()].rpartition(" ")[2].rpartition("\n")[2].lstrip("(\"'[“‘").lower()
    initial = len(word) == 1 and text[end.start() - 1].isupper() and word not in ("a", "i")
    return end[0] != "." or not (initial or word in _SHORT)
