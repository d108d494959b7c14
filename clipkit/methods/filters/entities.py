"""Whether a text names a thing of a list of WordNet synsets, as DataComp's text-based filter asks (Gadre et al., 2023).

What is read is a WordNet 3.0 dictionary as Princeton publishes it (wndb(5WN)): index.noun, noun.exc and so on.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path

from clipkit.errors import UsageError

# The parts of speech in the order in which synsets are listed, and how each forms inflections (morphy(7WN)).
_ENDINGS: dict[str, tuple[tuple[str, str], ...]] = {
    "noun": (
        ("s", ""),
        ("ses", "s"),
        ("ves", "f"),
        ("xes", "x"),
        ("zes", "z"),
        ("ches", "ch"),
        ("shes", "sh"),
        ("men", "man"),
        ("ies", "y"),
    ),
    "verb": (
        ("s", ""),
        ("ies", "y"),
        ("es", "e"),
        ("es", ""),
        ("ed", "e"),
        ("ed", ""),
        ("ing", "e"),
        ("ing", ""),
    ),
    "adj": (("er", ""), ("est", ""), ("er", "e"), ("est", "e")),
    "adv": (),
}


_LONGEST = 100  # characters of a word: WordNet's longest noun has 71


class WordNet:
    """The first synset of any word, in any inflection."""

    def __init__(self, folder: str) -> None:
        """Read a dictionary's folder. Raises UsageError where it is none."""
        self._first = {part: _index(Path(folder), part) for part in _ENDINGS}
        self._irregular = {part: _exceptions(Path(folder), part) for part in _ENDINGS}

    def first_offset(self, word: str) -> int | None:
        """The offset of a word's first synset: nouns before verbs, adjectives and adverbs; None if there is none.

        As NLTK 3.8.1 lists them, which DataComp used: case is folded, the word itself comes before what it may be an
        inflection of, and endings are taken off until something is found. Words over 100 characters are in no
        dictionary.
        """
        if len(word) > _LONGEST:
            return None
        word = word.lower()
        for part, first in self._first.items():
            for form in self._forms(word, part):
                return first[form]
        return None

    def _forms(self, word: str, part: str) -> Iterator[str]:
        """The word and its base forms that are in the dictionary, as soon as one rule or several lead to any."""
        known = self._first[part]
        if word in self._irregular[part]:
            yield from (form for form in (word, *self._irregular[part][word]) if form in known)
            return
        forms = [word]
        found = [form for form in (word, *_shortened(forms, part)) if form in known]
        while forms and not found:
            forms = _shortened(forms, part)
            found = [form for form in forms if form in known]
        yield from found


def _shortened(forms: Iterable[str], part: str) -> list[str]:
    made = (form.removesuffix(old) + new for form in forms for old, new in _ENDINGS[part] if form.endswith(old))
    return list(dict.fromkeys(made))


class Entities:
    """Calling it with a text says whether any of its words, split at white space, has its first synset in the list.

    Offsets are compared without the part of speech, as DataComp does: a verb counts if a listed noun has its number.
    """

    def __init__(self, wordnet: WordNet, offsets: frozenset[int]) -> None:
        self._offsets = offsets
        self._first = lru_cache(maxsize=1 << 17)(wordnet.first_offset)

    def __call__(self, text: str) -> bool:
        return any(self._first(word) in self._offsets for word in text.split())


def load_entities(wordnet: str, synsets: str) -> Entities:
    """Entities by a dictionary's folder and a file of synsets. Raises UsageError for what cannot be read."""
    return Entities(WordNet(wordnet), read_synsets(synsets))


def read_synsets(path: str) -> frozenset[int]:
    """Offsets of a file with one synset a line: `n02084071`, or its number alone. Blank lines and # comments may be."""
    found = set()
    for number, line in enumerate(_lines(Path(path), "--synsets"), 1):
        name = line.partition("#")[0].strip()
        if name:
            digits = name[1:] if name[0] in "nvasr" else name
            if not (digits.isascii() and digits.isdecimal()):
                raise UsageError(
                    f"--synsets: expected a synset such as n02084071, got {name[:40]!r}", where=f"{path}:{number}"
                )
            found.add(int(digits))
    if not found:
        raise UsageError(f"--synsets {path} names no synset", "one a line: n02084071")
    return frozenset(found)


def _index(folder: Path, part: str) -> dict[str, int]:
    """Lemma -> offset of its first synset, from index.PART."""
    found: dict[str, int] = {}
    path = folder / f"index.{part}"
    for number, line in enumerate(_lines(path, "--wordnet"), 1):
        if line.startswith(" "):  # the licence
            continue
        fields = line.split()
        try:  # lemma pos synsets pointers [pointer...] senses tagged offset...
            found[fields[0]] = int(fields[6 + int(fields[3])])
        except (ValueError, IndexError):
            raise UsageError("--wordnet: this is no line of a WordNet index", where=f"{path}:{number}") from None
    return found


def _exceptions(folder: Path, part: str) -> dict[str, list[str]]:
    """Irregular inflection -> base forms, from PART.exc."""
    lines = (line.split() for line in _lines(folder / f"{part}.exc", "--wordnet"))
    return {word: forms for word, *forms in (line for line in lines if line)}


def _lines(path: Path, flag: str) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        said = error.strerror if isinstance(error, OSError) else "not UTF-8"
        hint = "the folder of WordNet 3.0's files: dict/ of its archive, /usr/share/wordnet, or corpora/wordnet of NLTK"
        raise UsageError(f"{flag}: {path} cannot be read: {said}", hint if flag == "--wordnet" else None) from None
