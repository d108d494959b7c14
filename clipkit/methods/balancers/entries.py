"""The entries that captions are balanced over (MetaCLIP's "metadata"), and which of them a caption contains."""

from __future__ import annotations

import hashlib
import json
import unicodedata
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from clipkit.errors import UsageError
from clipkit.text.labels import is_text
from clipkit.text.matching import Matcher
from clipkit.text.wordnet import lemmas

WORDNET = "wordnet-nouns"
FORMS = "a text file with one entry a line, or a JSON list of strings"
_WRAPPED = ",.;:?!`"
_SPACES = "\t\n\r"
# Blocks of the scripts whose languages don't put spaces between words (Chinese, Japanese, Thai, Lao, Burmese, Khmer,
# Tibetan): first and last code point.
_UNSPACED = (
    (0x0E00, 0x0EFF),  # Thai, Lao
    (0x0F00, 0x0FFF),  # Tibetan
    (0x1000, 0x109F),  # Myanmar
    (0x1780, 0x17FF),  # Khmer
    (0x2E80, 0x2FFF),  # radicals
    (0x3040, 0x30FF),  # kana; not in MetaCLIP's list
    (0x3400, 0x4DBF),
    (0x4E00, 0x9FFF),
    (0xF900, 0xFAFF),
    (0x20000, 0x2EBEF),
)


def spaced(text: str) -> str:
    """A caption as it is searched: a space at both ends and around each of , . ; : ? ! `, tabs and line ends as spaces.

    Case stays, and so do all other characters (Xu et al., 2023: "Demystifying CLIP Data").
    """
    text = f" {text} "
    for mark in _WRAPPED:
        text = text.replace(mark, f" {mark} ")
    if not text.isprintable():  # most are, which is sooner seen
        for space in _SPACES:
            text = text.replace(space, " ")
    return text


def pattern(entry: str, *, unspaced: bool) -> str:
    """What a spaced caption has to contain for an entry: the entry between spaces.

    unspaced: MetaCLIP 2's rule (Chuang et al., 2025): no space on a side that ends in a character of a script that is
    written without spaces, or in punctuation.
    """
    before = "" if unspaced and _joins(entry[0]) else " "
    after = "" if unspaced and _joins(entry[-1]) else " "
    return f"{before}{entry}{after}"


def _joins(character: str) -> bool:
    """Whether it is of an unspaced script, or punctuation; of ASCII all that is neither letter, digit nor space is."""
    code = ord(character)
    if code < 128:
        return character.isprintable() and not character.isalnum() and character != " "
    if any(first <= code <= last for first, last in _UNSPACED):
        return True
    return unicodedata.category(character).startswith("P") or character == "\uff5e"  # a wide ~, which is a symbol


class Entries:
    """Lists of entries, one for all captions or one a language, numbered through.

    lists: language -> its entries; "" is the list of every language that has none of its own. Order and repeats don't
    matter: two of the same entries are equal.
    unspaced: as `pattern` takes it.
    """

    def __init__(self, lists: Mapping[str, Iterable[str]], *, unspaced: bool = False, name: str = "") -> None:
        self.name = name
        self.names: list[str] = []
        self._unspaced = unspaced
        self._ranges: dict[str, range] = {}
        for language in sorted(lists):
            start = len(self.names)
            self.names += sorted(set(lists[language]))
            self._ranges[language] = range(start, len(self.names))
        self._matchers: dict[str, Matcher] = {}
        self._numbers: dict[str, dict[str, int]] = {}

    def __len__(self) -> int:
        return len(self.names)

    @cached_property
    def digest(self) -> str:
        """16 hexadecimal digits that stand for the entries, their languages and the spacing rule."""
        said = [self._unspaced, {language: [self.names[n] for n in of] for language, of in self._ranges.items()}]
        return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:16]

    @property
    def identity(self) -> str:
        """What `via` and files of counts say of them."""
        return f"{self.name}@{self.digest[:8]}"

    def find(self, text: str, language: str = "") -> set[int]:
        """The numbers of the entries that a caption contains."""
        language = language if language in self._ranges else ""
        matcher = self._matchers.get(language)
        if matcher is None:
            matcher = self._matchers[language] = self._matcher(language)
        return matcher.find(spaced(text))

    def _matcher(self, language: str) -> Matcher:
        numbers = self._ranges.get(language, range(0))
        return Matcher((pattern(self.names[n], unspaced=self._unspaced), n) for n in numbers)

    def number(self, name: str, language: str = "") -> int:
        """The number of an entry. KeyError where there is none."""
        language = language if language in self._ranges else ""
        if language not in self._numbers:
            self._numbers[language] = {self.names[n]: n for n in self._ranges.get(language, ())}
        return self._numbers[language][name]


def load_entries(files: Mapping[str, str], *, per_language: bool = False) -> Entries:
    """The entries of files, language (or "") -> path; with none, WordNet 3.0's noun lemmas.

    per_language: MetaCLIP 2's spacing. Raises UsageError for a file that cannot be read or holds no entry.
    """
    if not files:
        return Entries({"": lemmas()}, unspaced=per_language, name=WORDNET)
    name = "+".join(Path(path).name for path in files.values())
    return Entries({lang: _read(path) for lang, path in files.items()}, unspaced=per_language, name=name)


def _read(path: str) -> list[str]:
    try:
        text = Path(path).expanduser().read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(f"--metadata {path}: not UTF-8 (byte {error.start})", "convert it, e.g. with iconv") from None
    except OSError as error:
        raise UsageError(f"--metadata {path} cannot be read: {error.strerror}") from None
    found = _json_list(text, path) if path.endswith(".json") else _lines(text)
    if not found:
        raise UsageError(f"--metadata {path}: no entries", f"expected {FORMS}")
    if bad := next((entry for entry in found if "\0" in entry or not is_text(entry)), None):
        raise UsageError(f"--metadata {path}: {bad!r} is no entry: it holds a NUL or half a character")
    return found


def _lines(text: str) -> list[str]:
    lines = (line.strip() for line in text.splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def _json_list(text: str, path: str) -> list[str]:
    try:
        value: Any = json.loads(text)
    except ValueError as error:
        raise UsageError(f"--metadata {path}: not JSON: {error}", f"expected {FORMS}") from None
    if not isinstance(value, list) or not all(isinstance(entry, str) for entry in value):
        raise UsageError(f"--metadata {path}: expected a list of strings", f"as in {FORMS}")
    return [entry for entry in value if entry]
