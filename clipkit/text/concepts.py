"""Which concepts a caption names: cats, "night snake", t-shirts; in the plural, hyphenated or not, in any case.

Word-bounded matching of lemmas, as Udandarao et al. count concepts in captions (No "Zero-Shot" Without Exponential
Data, 2024). They lemmatise each caption with a tagger. Here each concept is spelt out once in all its forms, and one
pass over a caption finds those of all concepts. Inflection is English; other languages match as written.
"""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from clipkit.errors import UsageError
from clipkit.text.labels import parse_labels
from clipkit.text.matching import Matcher
from clipkit.text.wordnet import nouns

_APOSTROPHES = str.maketrans(dict.fromkeys("\u2019\u2018\u02bc\u2032\u00b4`", "'"))
_ACCENTS = re.compile("[\u0300-\u036f]")  # of Latin, Greek and Cyrillic letters, once decomposed
_HYPHENS = "\u2010\u2011"
_ZERO_WIDTH_SPACE = "\u200b"
# Scripts without spaces between words: Thai to Myanmar, Khmer, kana, Han. Each of their letters is a token.
_UNSPACED = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\U00020000-\U0003ffff]")
# so that "can't" names no can, "she'll" no shell and "she'd" no shed
_CONTRACTED = re.compile(r"(?<=\w)(?:n't|'(?:ll|re|ve|d|m))\b")
_POSSESSIVE = re.compile(r"(?<=\w)'s\b")
_APOSTROPHE_WITHIN = re.compile(r"(?<=\w)'(?=\w)")
_JOINT_WITHIN = re.compile(r"(?<=\w)-(?=\w)|(?<=\b\w)\.(?=\w\b)")
_PREPOSITIONS = frozenset({"of", "in", "on", "at", "with", "for", "de", "des"})
# Of words that end so, in compounds too. Those of single words that are irregular otherwise are WordNet's.
_PLURAL_ENDINGS = (
    ("man", "men"),
    ("child", "children"),
    ("person", "people"),
    ("foot", "feet"),
    ("tooth", "teeth"),
    ("mouse", "mice"),
    ("goose", "geese"),
    ("lf", "lves"),
    ("eaf", "eaves"),
    ("oaf", "oaves"),
    ("arf", "arves"),
    ("hoof", "hooves"),
    ("thief", "thieves"),
    ("knife", "knives"),
    ("wife", "wives"),
    ("life", "lives"),
)

_SINGULAR_ENDINGS = (
    *((plural, singular) for singular, plural in _PLURAL_ENDINGS),
    ("ies", "y"),
    *((f"{ending}es", ending) for ending in ("s", "x", "z", "ch", "sh", "o")),
    ("s", ""),
)
_NO_PLURALS = frozenset({"cola", "crying", "dive", "lei", "roma", "stamina"})  # of colon, cry, diva, leu, rom, stamen


class _Tokens(dict[int, str]):
    """For str.translate: letters, digits and their marks stay, characters that don't show go, the rest is a space."""

    def __missing__(self, code: int) -> str:
        char = chr(code)
        kind = unicodedata.category(char)
        if kind == "Cf" and char != _ZERO_WIDTH_SPACE:
            said = ""
        elif _UNSPACED.match(char):
            said = char if kind[0] == "M" else f" {char}"
        else:
            said = char if kind[0] in "LNM" else " "
        self[code] = said
        return said


_TOKENS = _Tokens()


def fold(text: str) -> str:
    """A text as concepts are looked for in it: its words, with a space before, between and after them.

    Compatibility forms, case and accents are levelled (NFKC, casefold); punctuation, hyphens and underscores part
    words; a possessive 's goes. A text without words gives a single space.
    """
    return next(_readings(text))


def forms(name: str) -> frozenset[str]:
    """The folded spellings that stand for a concept; none where it has no letter or digit.

    The name; the plural of its last word ("night snakes") or of what comes before of, in, ... ("birds of prey"); its
    singular, where it is given in the plural and WordNet knows only the singular; hyphens and apostrophes as spaces or
    as nothing ("t shirt", "tshirt"), and two words as one unless that is another noun ("icecream", not "greenhouse").
    """
    spelt: set[tuple[str, ...]] = set()
    for reading in _readings(name):
        words = tuple(reading.split())
        if words:
            spelt |= {words, *_inflected(words)}
            if len(words) == 2 and not _another(words):
                joined = ("".join(words),)
                spelt |= {joined, *_inflected(joined)}
    return frozenset(f" {' '.join(words)} " for words in spelt)


@dataclass(frozen=True, slots=True)
class Concepts:
    """names: as given, for output. groups: of each the spellings a person would use, the name among them or instead."""

    names: tuple[str, ...]
    groups: tuple[tuple[str, ...], ...]


def read_concepts(spec: str) -> Concepts:
    """Concepts from `a,b,c` or `@FILE`, as labels are given. Quotes around a name go; its underscores are spaces.

    A .json of class -> [synonyms] gives groups: any of them counts for the class.
    Raises UsageError, also for a concept that no caption can name, and for a name given twice.
    """
    try:
        labels = parse_labels(spec)
    except UsageError as error:
        hint = error.hint and error.hint.replace("--labels", "--concepts")
        raise UsageError(error.message.replace("--labels", "--concepts"), hint) from None
    names = tuple(_unquoted(name) for name in labels.names)
    described: Mapping[str, Sequence[str]] = labels.descriptions or {}
    groups = tuple(
        tuple(spoken(text) for text in described.get(given) or (name,))
        for given, name in zip(labels.names, names, strict=True)
    )
    for name, group in zip(names, groups, strict=True):
        for text in group:
            if not fold(text).strip():
                raise UsageError(f"concept {name!r}: {text!r} has no letter or digit", "no caption can name it")
    if len(set(names)) < len(names):
        twice = next(name for at, name in enumerate(names) if name in names[:at])
        raise UsageError(f"concept {twice!r} is named twice")
    return Concepts(names, groups)


def spoken(name: str) -> str:
    """A name as a person would write it: underscores as spaces, no quotes around it."""
    return " ".join(_unquoted(name).replace("_", " ").split())


class ConceptMatcher:
    """Finds which groups of concepts a text names, in one pass over it.

    groups: the names of each; any form of any of them counts for the group.
    """

    def __init__(self, groups: Sequence[Sequence[str]]) -> None:
        self._matcher = Matcher(
            (form, number) for number, group in enumerate(groups) for name in group for form in sorted(forms(name))
        )

    def find(self, text: str) -> set[int]:
        """The numbers of the groups of which a form occurs in the text."""
        return self._matcher.find("|".join(_readings(text)))


def _unquoted(name: str) -> str:
    return name[1:-1].strip() if len(name) > 2 and name[0] == name[-1] == '"' else name


def _readings(text: str) -> Iterator[str]:
    """The ways to read a text, folded; `fold`'s first. Apostrophes and hyphens part words, or join them.

    So "Audubon's oriole" is both "audubon oriole" and "audubons oriole", and "e-mail" is "e mail" and "email".
    """
    text = text.translate(_APOSTROPHES)
    if not text.isascii():
        text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
        text = _ACCENTS.sub("", unicodedata.normalize("NFKD", text))
        for hyphen in _HYPHENS:
            text = text.replace(hyphen, "-")
    else:
        text = text.lower()
    parted, *more = (text,)
    if "'" in text:
        text = _CONTRACTED.sub(lambda found: f" {found[0].replace(chr(39), '')} ", text)
        parted = _POSSESSIVE.sub("", text)
        more = [_APOSTROPHE_WITHIN.sub("", text)]
    more += [joined for reading in (parted, *more) if (joined := _JOINT_WITHIN.sub("", reading)) != reading]
    yield _tokens(parted)
    for reading in dict.fromkeys(more):
        yield _tokens(reading)


def _tokens(text: str) -> str:
    words = text.translate(_TOKENS).split()
    return f" {' '.join(words)} " if words else " "


def _another(words: tuple[str, ...]) -> bool:
    """Whether two words written as one are a noun that they are not: a green house and a greenhouse."""
    senses = nouns().senses
    return not set(senses.get("".join(words), ())) <= set(senses.get(" ".join(words), ()))


def _inflected(words: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """A name's words in the other number."""
    last = words[-1]
    if singulars := _singulars(last):
        for singular in singulars:
            yield (*words[:-1], singular)
    else:
        for plural in _plurals(last):
            yield (*words[:-1], plural)
    head = next((at for at, word in enumerate(words[1:-1]) if word in _PREPOSITIONS), None)
    if head is not None:
        for plural in _plurals(words[head]):
            yield (*words[:head], plural, *words[head + 1 :])


def _plurals(word: str) -> Iterator[str]:
    """The plurals of a word: regular, by its ending, and WordNet's. Those that nobody writes do no harm."""
    if not word.isascii() or len(word) < 2:
        return
    yield from _irregular().get(word, ())
    for singular, plural in _PLURAL_ENDINGS:
        if word.endswith(singular):
            yield word.removesuffix(singular) + plural
    if word[-1] == "y" and (word[-2] not in "aeou" or word.endswith("quy")):
        yield word[:-1] + "ies"
    elif word.endswith("z"):
        yield from (word + "es", word + "zes")
    elif word.endswith(("s", "x", "sh")):
        yield word + "es"
    elif word.endswith(("ch", "o")):
        yield from (word + "s", word + "es")
    else:
        yield word + "s"


def _singulars(word: str) -> list[str]:
    """The singulars of a word that is a plural: WordNet has it as irregular, or has the singular and not the word.

    So scissors, glasses and news are none.
    """
    known = nouns().senses
    found = list(_singulars_of().get(word, ()))
    if word in known:
        return found
    for plural, singular in _SINGULAR_ENDINGS:
        stem = word.removesuffix(plural) + singular
        if word.endswith(plural) and stem in known:
            found.append(stem)
    return found


@lru_cache(maxsize=1)
def _singulars_of() -> dict[str, list[str]]:
    """WordNet's irregular plurals -> singulars, without those that are something else to nearly everybody."""
    pairs = ((plural, [s for s in of if s != plural]) for plural, of in nouns().plurals.items())
    return {plural: of for plural, of in pairs if of and plural not in _NO_PLURALS}


@lru_cache(maxsize=1)
def _irregular() -> dict[str, list[str]]:
    """Singular -> WordNet's irregular plurals."""
    found: dict[str, list[str]] = defaultdict(list)
    for plural, singulars in _singulars_of().items():
        for singular in singulars:
            found[singular].append(plural)
    return dict(found)
