"""The names that people use for a class, and which of them captions use most: REAL-Prompt (Parashar et al., 2024)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from clipkit.errors import UsageError
from clipkit.text.concepts import fold, forms, read_concepts, spoken
from clipkit.text.labels import Labels, parse_labels
from clipkit.text.wordnet import nouns

_LISTED: Final = 6  # names told in a notice


@dataclass(frozen=True, slots=True)
class Synonyms:
    """groups: of each class, in the order of the labels, its name and then the others, as people write them.

    contested: synonyms that stand for none, because several classes have them. unknown: names for which synonyms were
    given and that are no class.
    """

    groups: tuple[tuple[str, ...], ...]
    contested: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()

    @property
    def notices(self) -> list[str]:
        """What a person should hear."""
        said = []
        if self.contested:
            said.append(f"{len(self.contested):,} left out, as several classes have them: {listed(self.contested)}")
        if self.unknown:
            said.append(f"{len(self.unknown):,} with synonyms and no class: {listed(self.unknown)}")
        return said


def read_classes(spec: str) -> Labels:
    """Classes as `parse_labels` reads them; quotes around names are of the file. Raises UsageError."""
    labels = parse_labels(spec)
    return Labels(read_concepts(spec).names) if labels.descriptions is None else labels


def read_synonyms(path: str) -> dict[str, tuple[str, ...]]:
    """Class -> synonyms, from a .json file of such an object. Raises UsageError."""
    hint = 'expected an object of class -> synonyms, such as {"sofa": ["couch"]}'
    try:
        found = parse_labels(f"@{path}").descriptions
    except UsageError as error:
        raise UsageError(f"--synonyms: {error.message}", hint) from None
    if found is None:
        raise UsageError(f"--synonyms: {path} is a list of names", hint)
    return dict(found)


def synonyms_of(names: Sequence[str], given: Mapping[str, Sequence[str]] | None) -> Synonyms:
    """Each class with its synonyms: the given ones, or where no file gives any WordNet's, of the most common sense of
    its name and of theirs.

    What folds to the same is one synonym. One that several classes have, or that is another class's name, would make
    them one class: it is nobody's, but a class keeps its name. Raises UsageError for a class that no text can name.
    """
    offered = [[spoken(name), *map(spoken, _offered(name, given))] for name in names]
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
        kept = {fold(group[0]): group[0]}
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
    lemmas = [spoken(name), *sorted(form.strip() for form in forms(name))]  # a class may be in the plural
    return next((found for lemma in lemmas if (found := _of_one_mind(lemma))), ())


def _of_one_mind(lemma: str) -> Sequence[str]:
    """The lemmas of a lemma's most common sense for which it is the most common one, too: in captions they mean that.

    Of "hat" so is "chapeau" and not "lid". None where WordNet has no such noun.
    """
    senses = nouns().senses
    sense = senses.get(lemma.lower(), (None,))[0]
    return [other for other in nouns().synonyms(lemma) if senses[other.lower()][0] == sense]
