"""The names that people use for a class, and which of them captions use most: REAL-Prompt (Parashar et al., 2024)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from clipkit.errors import UsageError
from clipkit.text.concepts import fold, forms, spoken
from clipkit.text.labels import Labels
from clipkit.text.wordnet import nouns

_LISTED: Final = 6  # names told in a notice


@dataclass(frozen=True, slots=True)
class Synonyms:
    """groups: of each class, in the order of the labels, its name and then the others, as written.

    contested: synonyms that stand for none, because several classes have them. unknown: names for which synonyms were
    given and that are no class.
    """

    groups: tuple[tuple[str, ...], ...]
    contested: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()

    @property
    def notices(self) -> list[str]:
        """What a person should hear of those that are left out."""
        said = []
        if self.contested:
            said.append(f"{len(self.contested):,} left out, as several classes have them: {listed(self.contested)}")
        if self.unknown:
            said.append(f"{len(self.unknown):,} with synonyms and no class: {listed(self.unknown)}")
        return said


def read_synonyms(path: str) -> dict[str, list[str]]:
    """Class -> synonyms, from a JSON file of such an object. Raises UsageError."""
    try:
        value = json.loads(Path(path).expanduser().read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise UsageError(f"cannot read the synonyms in {path}: {error.strerror}") from None
    except ValueError as error:  # UnicodeDecodeError and RecursionError's like are ValueErrors or none of ours
        raise UsageError(f"synonyms in {path}: not JSON: {error}") from None
    if not isinstance(value, dict) or not value:
        raise UsageError(f"synonyms in {path}: expected an object of class -> synonyms", 'such as {"sofa": ["couch"]}')
    labels = Labels.from_json({name: texts for name, texts in value.items() if texts != []}, f"synonyms in {path}")
    return {name: list(texts) for name, texts in (labels.descriptions or {}).items()}


def synonyms_of(names: Sequence[str], given: Mapping[str, Sequence[str]] | None) -> Synonyms:
    """Each class with its synonyms: the given ones, or where none are given those of its name's most common sense in
    WordNet.

    What folds to the same is one synonym. One that several classes have, or that is another class's name, would make
    them one class: it is nobody's, but a class keeps its name. Raises UsageError for a class that no text can name.
    """
    offered = [[name, *map(spoken, _offered(name, given))] for name in names]
    owners: dict[str, set[int]] = {}
    for number, group in enumerate(offered):
        for text in group:
            for form in forms(text):
                owners.setdefault(form, set()).add(number)
    groups: list[tuple[str, ...]] = []
    contested: dict[str, None] = {}
    for name, group in zip(names, offered, strict=True):
        if not forms(name):
            raise UsageError(f"class {name!r} has no letter or digit", "no caption can be found to name it")
        kept = {fold(name): name}
        for text in group[1:]:
            if len(set().union(*(owners[form] for form in forms(text)))) > 1:
                contested[text] = None
            elif forms(text):
                kept.setdefault(fold(text), text)
        groups.append(tuple(kept.values()))
    unknown = tuple(name for name in given or () if name not in set(names))
    return Synonyms(tuple(groups), tuple(contested), unknown)


def choose(counts: Mapping[str, int]) -> str:
    """Which of a class's names most captions contain; of equals the class name, which is the first, then by name."""
    first, best = next(iter(counts)), max(counts.values())
    return first if counts[first] == best else min(name for name, count in counts.items() if count == best)


def listed(names: Sequence[str]) -> str:
    """The first of several names, and how many more there are."""
    more = f", and {len(names) - _LISTED:,} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + more


def _offered(name: str, given: Mapping[str, Sequence[str]] | None) -> Sequence[str]:
    if given is not None:
        return given.get(name, ())
    known = nouns()
    lemmas = [spoken(name), *sorted(form.strip() for form in forms(name))]  # a class may be in the plural
    return next((found for lemma in lemmas if (found := known.synonyms(lemma))), ())
