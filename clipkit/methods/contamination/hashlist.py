"""Lists of digests: a benchmark whose images nobody has to have."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from clipkit.errors import ClipkitError, UsageError

METHODS: Final = {64: "bytes", 16: "phash"}  # hex digits -> the method that compares them
_HEX: Final = re.compile("[0-9a-fA-F]+")
_HINT: Final = "a line is DIGEST, DIGEST NAME or NAME DIGEST, as sha256sum prints; a file of paths is named @FILE"


@dataclass(frozen=True, slots=True)
class Digest:
    """One line of a list. method: what compares it. name: as the list calls it, else the digest itself."""

    method: str
    value: bytes
    name: str


def read(path: str) -> list[Digest]:
    """The digests of a file: one a line, blank lines and lines that start with `#` left out.

    64 hex digits are the sha256 of an image's bytes, 16 a phash. Raises UsageError for a line that holds neither, for
    it would protect nothing, and ClipkitError for a file that cannot be read.
    """
    found = []
    try:
        with open(path, encoding="utf-8-sig", errors="replace") as file:
            for number, line in enumerate(file, 1):
                text = line.strip()
                if not text or text.startswith("#"):
                    continue
                found.append(_digest(text, f"{path}:{number}"))
    except OSError as error:
        raise ClipkitError(f"--against {path} cannot be read: {error.strerror}") from None
    return found


def _digest(text: str, where: str) -> Digest:
    """The digest is the first word or the last; the rest is a name (`*NAME` where sha256sum read it as binary).

    A backslash before all says that sha256sum wrote one in the name too, for a character that ends lines, say.
    """
    text = text.removeprefix("\\")
    first, _, rest = text.partition(" ") if "\t" not in text else text.partition("\t")
    before, _, last = text.replace("\t", " ").rpartition(" ")
    for word, name in ((first, rest), (last, before)):
        method = METHODS.get(len(word)) if _HEX.fullmatch(word) else None
        if method:
            name = name.strip().removeprefix("*")
            return Digest(method, bytes.fromhex(word), name or word.lower())
    raise UsageError(f"expected 64 hex digits (sha256) or 16 (phash), got {_said(first)}", _HINT, where=where)


def _said(word: str) -> str:
    if _HEX.fullmatch(word):
        return f"{len(word)} hex digits"
    return repr(word if len(word) <= 40 else word[:40] + "...")
