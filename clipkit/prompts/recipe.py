"""A recipe: what a language model is asked of a record, and what its answer means. A TOML file; the package has some."""

from __future__ import annotations

from typing import Literal

import msgspec


class Example(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A caption and its rewriting, shown in the prompt (in-context learning)."""

    before: str
    after: str


class Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a field of a JSON answer is. source: of its captions, RECIPE/source. many: it is a list of texts.
    negative: its captions are not true of the picture. sentences: it is split into sentences, each a caption.
    caption: False for what is kept but is no caption (tags)."""

    source: str
    many: bool = False
    negative: bool = False
    sentences: bool = False


class Recipe(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """method: vlm (the picture is sent) or rewrite (texts alone). prompt: may name {text} (the caption in use),
    {original}, {generated} (the newest caption that a model wrote), {examples}, and any other field of the record.
    variants: answers of a record, each its own request; a variant draws its own `shots` of `examples`.
    answer: fields of the JSON object that is expected; none: the answer is a caption as it stands.
    """

    name: str
    about: str
    paper: str = ""
    method: Literal["vlm", "rewrite"]
    system: str = ""
    prompt: str
    variants: int = 1
    shots: int = 0
    examples: tuple[Example, ...] = ()
    temperature: float = 0.0
    top_p: float = 1.0
    max_tokens: int = 256
    answer: dict[str, Part] = {}
