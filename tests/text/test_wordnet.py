"""The nouns that come with the package, against what WordNet 3.0 is known to hold."""

from __future__ import annotations

import gzip
from importlib.resources import files

from clipkit.text.wordnet import nouns


def test_as_many_as_princeton_counts() -> None:
    """wnstats(7) of WordNet 3.0: 82,115 noun synsets, 117,798 strings. Those differ in case; ours are as written."""
    assert len(nouns().synsets) == 82_115
    assert len(nouns().senses) == 117_798
    lemmas = nouns().lemmas()
    assert len(lemmas) == len(set(lemmas)) == 119_034
    assert lemmas == sorted({lemma for synset in nouns().synsets for lemma in synset})
    assert not any("_" in lemma or lemma != lemma.strip() for lemma in lemmas)


def test_the_most_common_sense_comes_first() -> None:
    assert nouns().synonyms("dog") == ("dog", "domestic dog", "Canis familiaris")
    assert nouns().synonyms("DOMESTIC DOG") == nouns().synonyms("dog")
    assert nouns().synonyms("no such noun") == ()


def test_irregular_plurals() -> None:
    assert nouns().plurals["mice"] == ("mouse",)
    assert "dogs" not in nouns().plurals


def test_the_licence_stays_with_the_data() -> None:
    head = gzip.decompress((files("clipkit.text") / "wordnet.txt.gz").read_bytes())[:4000].decode()
    assert head.startswith("# This software and database is being provided to you, the LICENSEE, by")
    assert "WordNet 3.0 Copyright 2006 by Princeton University" in head
