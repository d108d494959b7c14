"""The nouns of WordNet 3.0 (Miller, 1995), which come with the package; their licence is in front of the file.

tools/build_wordnet.py makes the file.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files


@dataclass(frozen=True, slots=True)
class Nouns:
    """synsets: the lemmas of each, as written ("Canis familiaris"). plurals: irregular plural -> singulars, lower case.

    senses: a lemma in lower case -> the synsets it is in, most common sense first.
    """

    synsets: tuple[tuple[str, ...], ...]
    senses: dict[str, tuple[int, ...]]
    plurals: dict[str, tuple[str, ...]]

    def lemmas(self) -> list[str]:
        """All lemmas once, sorted."""
        return lemmas()

    def synonyms(self, name: str) -> tuple[str, ...]:
        """The lemmas of the most common sense of a name, in any case; none where WordNet has no such noun."""
        found = self.senses.get(name.lower())
        return self.synsets[found[0]] if found else ()


@lru_cache(maxsize=1)
def nouns() -> Nouns:
    """WordNet's nouns, read once."""
    synsets: list[tuple[str, ...]] = []
    senses: dict[str, list[tuple[int, int]]] = {}
    plurals: dict[str, tuple[str, ...]] = {}
    for line in _lines():
        if line.startswith("!"):
            plural, *singulars = line[1:].split()
            plurals[plural] = tuple(singulars)
            continue
        synset = []
        for part in line.split("|"):
            lemma, _, sense = part.rpartition("#")
            synset.append(lemma)
            senses.setdefault(lemma.lower(), []).append((int(sense), len(synsets)))
        synsets.append(tuple(synset))
    ordered = {name: tuple(dict.fromkeys(at for _, at in sorted(found))) for name, found in senses.items()}
    return Nouns(tuple(synsets), ordered, plurals)


def lemmas() -> list[str]:
    """All lemmas once, sorted, in a fifth of the time of `nouns`."""
    synsets = (line for line in _lines() if not line.startswith("!"))
    return sorted({part.rpartition("#")[0] for synset in synsets for part in synset.split("|")})


def _lines() -> Iterator[str]:
    """A synset each, `LEMMA#SENSE|...`, then irregular plurals, `!PLURAL SINGULAR ...`."""
    text = gzip.decompress((files("clipkit.text") / "wordnet.txt.gz").read_bytes()).decode("ascii")
    return (line for line in text.splitlines() if not line.startswith("#"))
