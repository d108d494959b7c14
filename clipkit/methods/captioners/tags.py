"""The carried captioner: what zero-shot finds in the picture, said by rules of grammar in front of the alt-text.

It is no language model. It knows the nouns of a list and nothing of what they do or where they are; docs/recaption.md
says how often they are right. What it is for: captions without a download, and a test of what better ones are worth.
The order of things is VeCLIP's (Lai et al., 2024), which has a language model fuse them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final

from clipkit.errors import ClipkitError, RecordError, UsageError
from clipkit.methods.captioners.base import Captioner, Request, Written, joint_features
from clipkit.methods.concepts.tags import THRESHOLD, Tagger
from clipkit.methods.parameters import param
from clipkit.stream.captions import Caption
from clipkit.text.concepts import ConceptMatcher, fold, spoken
from clipkit.text.wordnet import nouns

if TYPE_CHECKING:
    from clipkit.features.embedder import Embedder

LEAD: Final = "a picture of"
# Nouns that take no article; plurals are told by rule.
_MASS_NOUNS = """
bacon beer bread broccoli candy cheese chocolate clothing coffee corn fire fog food fruit furniture grass hair ice juice
jewelry lightning luggage meat milk news paper pasta popcorn rain rice salad salt sand smoke snow spaghetti steam sugar
sushi tea water wheat wine wood
"""
_MASS: Final = frozenset((*_MASS_NOUNS.split(), "ice cream"))
_PLURALS: Final = frozenset(
    (
        "binoculars",
        "clothes",
        "dice",
        "fries",
        "glasses",
        "pajamas",
        "pants",
        "scissors",
        "shorts",
        "stairs",
        "sunglasses",
    )
)
_YOO: Final = ("uni", "use", "usu", "uti", "eu", "ewe", "one", "ufo", "uk")  # sounds like a consonant
_MUTE_H: Final = ("hour", "heir", "honest", "honour", "honor")


@dataclass(kw_only=True)
class Tags(Captioner):
    """`a picture of a dog and a ball: summer in the park`: the most probable concepts before the caption in use.

    Concepts are found as `concepts count --by image` does (the softmax over all concepts of the list and 300 nouns for
    whatever else there is). Those that the caption names already are left out; where none is left the record stays as
    it is. Deterministic.
    """

    name: ClassVar[str] = "tags"
    asks_model: ClassVar[bool] = True

    concepts: str = param("", "a file of nouns, one a line; without it, those that come with clipkit")
    most: int = param(3, "how many concepts a caption names at most", low=1)
    threshold: float = param(THRESHOLD, "the probability that a concept has at least, between 0 and 1", low=0)

    _names: list[str] = field(default_factory=list, init=False, repr=False)

    def __post_init__(self) -> None:
        if not 0 < self.threshold < 1:
            raise ValueError(f"threshold of tags is a probability, above 0 and below 1, not {self.threshold:g}")

    def setup(self, embedder: Embedder | None, device: str) -> None:
        assert embedder is not None
        self._names = read_nouns(self.concepts) if self.concepts else carried()
        groups = [(name,) for name in self._names]
        encoder = embedder.encoder
        self._embedder, self._matcher = embedder, ConceptMatcher(groups)
        self._tagger = Tagger(embedder, groups, encoder.default_templates, encoder.logit_scale)
        self.batch_size, self.lanes = encoder.batch_size, encoder.lanes

    @property
    def identity(self) -> str:
        return str(self._embedder.encoder.identity)

    @property
    def decides(self) -> dict[str, Any]:
        return {"concepts": hashlib.blake2b("\n".join(self._names).encode(), digest_size=6).hexdigest()}

    def begin(self, request: Request) -> Any:
        assert request.image is not None
        return request, request.image(), self._matcher.find(request.text)

    def finish(self, begun: list[Any]) -> list[Written | RecordError]:
        features = joint_features(self._embedder, [item for _, item, _ in begun])
        probabilities = self._tagger.probabilities(features)
        return [
            self._written(request, named, row.tolist())
            for (request, _, named), row in zip(begun, probabilities, strict=True)
        ]

    def _written(self, request: Request, named: set[int], probabilities: Sequence[float]) -> Written:
        likely = [at for at, probability in enumerate(probabilities) if probability >= self.threshold]
        found = sorted(likely, key=lambda at: (-probabilities[at], at))[: self.most]
        new = [self._names[at] for at in found if at not in named]
        if not new:
            return Written(())
        return Written([Caption(fused(new, request.text), self.name, self.identity)])


def fused(names: Sequence[str], text: str) -> str:
    """The sentence that has both: what is seen, and after a colon the text, where there is one."""
    seen = f"{LEAD} {listed([with_article(name) for name in names])}"
    text = " ".join(text.split())
    return f"{seen}: {text}" if text else seen


def listed(phrases: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    *first, last = phrases
    return f"{', '.join(first)} and {last}" if first else last


def with_article(name: str) -> str:
    """`a dog`, `an hour glass`, `scissors`, `grass`: English, by rule; a name (with a capital letter) has none."""
    head = name.split()[-1].lower()
    if name[:1].isupper() or name.lower() in _MASS or head in _MASS or _plural(head):
        return name
    word = name.lower()
    vowel = word.startswith(_MUTE_H) or (word[:1] in tuple("aeiou") and not word.startswith(_YOO))
    return f"{'an' if vowel or word.startswith('x-') else 'a'} {name}"


def _plural(word: str) -> bool:
    """Whether a word is a plural: WordNet has it as irregular, or has what it is without its s, and not the word."""
    if word in _PLURALS or word not in nouns().plurals.get(word, (word,)):
        return True
    stems = (word.removesuffix("s"), word.removesuffix("es"), f"{word.removesuffix('ies')}y")
    return word.endswith("s") and word not in nouns().senses and any(stem in nouns().senses for stem in stems)


@lru_cache(maxsize=1)
def carried() -> list[str]:
    """The list that comes with clipkit: 519 nouns of everyday things that can be seen, one a kind."""
    return (files("clipkit.methods.captioners") / "concepts.txt").read_text(encoding="utf-8").split("\n")[:-1]


def read_nouns(path: str) -> list[str]:
    """Concepts of a file, one a line; blank lines and `#` comments go. Raises UsageError, ClipkitError."""
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError:
        raise UsageError(f"--set concepts={path}: there is no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ClipkitError(f"{path}: cannot be read as text: {error}") from None
    names = [spoken(line.strip()) for line in lines if line.strip() and not line.lstrip().startswith("#")]
    if silent := [name for name in names if not fold(name).strip()]:
        raise UsageError(f"{path}: {silent[0]!r} has no letter or digit", "a concept a line, such as: ice cream")
    if not names:
        raise UsageError(f"{path} names no concept", "a concept a line, such as: ice cream")
    return list(dict.fromkeys(names))
