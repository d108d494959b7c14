"""The nouns of WordNet 3.0, read from its `data.noun`: lemmas, gloss and first hypernym of each synset."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Synset:
    """lemmas: blanks for underscores. gloss: definitions, without the examples. hypernym: the wnid of the first one."""

    wnid: str
    lemmas: tuple[str, ...]
    gloss: str
    hypernym: str | None


def read_nouns(data_noun: str) -> dict[str, Synset]:
    """All synsets of a `data.noun` (format: wndb(5WN)) by wnid, `n` and the eight digits of the offset."""
    lines = (line for line in data_noun.splitlines() if not line.startswith("  "))
    return {synset.wnid: synset for synset in map(_parse, lines)}


def ancestors(nouns: dict[str, Synset], wnid: str) -> list[Synset]:
    """The synsets above one along first hypernyms, nearest first."""
    above = []
    parent = nouns[wnid].hypernym
    while parent is not None:
        above.append(nouns[parent])
        parent = nouns[parent].hypernym
    return above


def _parse(line: str) -> Synset:
    fields, _, description = line.partition(" | ")
    words = fields.split(" ")
    count = int(words[3], 16)
    lemmas = tuple(word.replace("_", " ") for word in words[4 : 4 + 2 * count : 2])
    pointers = words[5 + 2 * count :]
    parents = [f"n{pointers[at + 1]}" for at in range(0, len(pointers) - 3, 4) if pointers[at] in ("@", "@i")]
    gloss = description.partition('; "')[0].strip()
    return Synset(f"n{words[0]}", lemmas, gloss, parents[0] if parents else None)
