"""Text that a terminal only shows."""

from __future__ import annotations

import unicodedata


def printable(text: str) -> str:
    """Text on one line, with control characters and undecodable bytes escaped: data must not drive the terminal."""
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() or unicodedata.category(char) == "Zs" else char.encode("unicode_escape").decode()
        for char in text
    )
