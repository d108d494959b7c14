"""Published filters, as conditions that can be printed and changed; docs/filter.md compares them with their papers."""

from __future__ import annotations

import shlex
from dataclasses import dataclass

# What DataComp calls English: fastText's first guess. `clipkit score --by lang` writes it.
_ENGLISH = "lang == 'en'"


@dataclass(frozen=True, slots=True)
class Preset:
    """A filter as flags of `clipkit filter`.

    where: conditions, all of which must hold. top_fraction, by: the best part by a field.
    model: the architecture whose scores the numbers are about, None where any will do; `by`, else `scores.clip`, is
    the field that it has to have made. citation: whose filter it is. notes: what to know, in a line.
    """

    name: str
    citation: str
    where: tuple[str, ...] = ()
    by: str | None = None
    top_fraction: float | None = None
    model: str | None = None
    notes: str = ""

    @property
    def scored(self) -> str:
        """The field that `model` is about."""
        return self.by or "scores.clip"

    def flags(self) -> str:
        """What could be typed instead of `--preset NAME`."""
        words = [word for condition in self.where for word in ("--where", condition)]
        if self.top_fraction is not None and self.by:
            words += ["--top-fraction", f"{self.top_fraction:g}", "--by", self.by]
        return " ".join(map(_quoted, words))


def _quoted(word: str) -> str:
    """A word as a person would quote it for a shell."""
    return f'"{word}"' if "'" in word and not set('"$`\\!') & set(word) else shlex.quote(word)


def datacomp_basic() -> Preset:
    """DataComp's basic filtering, as its code has it: English, more than two words, size and shape."""
    return Preset(
        "datacomp-basic",
        "Gadre et al., DataComp, 2023",
        where=(
            _ENGLISH,
            "words(text) > 2",
            "len(text) > 5",
            "min(width, height) >= 200",
            "max(width, height) / min(width, height) <= 3.0",
        ),
        notes="needs clipkit score --by lang,size",
    )


def laion2b() -> Preset:
    """DataComp's rendering of LAION-2B: English, and a cosine of at least 0.28 by OpenAI's ViT-B/32."""
    return Preset(
        "laion2b",
        "Schuhmann et al., LAION-5B, 2022, as in Gadre et al., 2023",
        where=(_ENGLISH, "scores.clip >= 0.28"),
        model="ViT-B-32",
        notes="needs clipkit score --by lang,clip --model ViT-B-32:openai; the original had its language from gcld3",
    )


def text_based() -> Preset:
    """DataComp's text-based filtering: English, and a word whose first WordNet synset is one of ImageNet-21k's."""
    return Preset(
        "text-based",
        "Gadre et al., DataComp, 2023",
        where=(_ENGLISH, "entity(text)"),
        notes="needs clipkit score --by lang, --wordnet DIR and --synsets FILE",
    )


def clip_l14_30() -> Preset:
    """DataComp's best filter by score alone: the top 30 % by the cosine of OpenAI's ViT-L/14."""
    return Preset(
        "clip-l14-30",
        "Gadre et al., DataComp, 2023",
        by="scores.clip",
        top_fraction=0.3,
        model="ViT-L-14",
        notes="needs clipkit score --by clip --model ViT-L-14:openai; --strict-datacomp keeps one more, and ties",
    )


def dfn() -> Preset:
    """The top 15 % by a data filtering network: a CLIP model of your own, trained on pairs that you trust."""
    return Preset(
        "dfn",
        "Fang et al., Data Filtering Networks, 2023",
        by="scores.clip",
        top_fraction=0.15,
        notes="needs clipkit score --by clip --model ARCH:path/to/network.pt; --by FIELD where it has another name",
    )


def architecture(maker: str) -> str:
    """The architecture in who made a score: `clip/ViT-B-32-quickgelu:openai@9a1b` to `ViT-B-32`.

    The activation is not part of it: OpenAI's weights are named with and without `-quickgelu`.
    """
    model = maker.partition("/")[2] or maker
    model = model.rpartition("@")[0] or model
    return model if model.startswith("hf-hub:") else model.partition(":")[0].removesuffix("-quickgelu")
