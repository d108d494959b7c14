"""The nouns of WordNet 3.0 (Miller, 1995), which come with the package; their licence is in front of the file.

tools/build_wordnet.py makes the file.
"""

from __future__ import annotations

import gzip
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
        return sorted({lemma for synset in self.synsets for lemma in synset})

    def synonyms(self, name: str) -> tuple[str, ...]:
        """The lemmas of the most common sense of a name, in any case; none where WordNet has no such noun."""
        found = self.senses.get(name.lower())
        return self.synsets[found[0]] if found else ()


@lru_cache(maxsize=1)
def nouns() -> Nouns:
    """WordNet's nouns, read once."""
    text = gzip.decompress((files("clipkit.text") / "wordnet.txt.gz").read_bytes()).decode("ascii")
    synsets: list[tuple[str, ...]] = []
    senses: dict[str, list[tuple[int, int]]] = {}
    plurals: dict[str, tuple[str, ...]] = {}
    for line in text.splitlines():
        if line.startswith("#"):
            continue
        if line.startswith("!"):
            plural, *singulars = line[1:].split()
            plurals[plural] = tuple(singulars)
            continue
        lemmas = []
        for part in line.split("|"):
            lemma, _, sense = part.rpartition("#")
            lemmas.append(lemma)
            senses.setdefault(lemma.lower(), []).append((int(sense), len(synsets)))
        synsets.append(tuple(lemmas))
    ordered = {name: tuple(dict.fromkeys(at for _, at in sorted(found))) for name, found in senses.items()}
    return Nouns(tuple(synsets), ordered, plurals)
