"""A recipe: what a language model is asked of a record, and what its answer means. A TOML file."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

Slug = Annotated[str, Meta(pattern="^[a-z0-9][a-z0-9_.-]*$", max_length=64)]


class Example(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A caption and its rewriting, shown in the prompt (in-context learning)."""

    before: Annotated[str, Meta(min_length=1)]
    after: Annotated[str, Meta(min_length=1)]


class Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a field of a JSON answer is. source: of its captions, RECIPE/source. many: it is a list of texts, each a
    caption; joined: with commas between them they are one. negative: its captions are not true of the picture.
    sentences: each of its sentences is a caption."""

    source: Slug
    many: bool = False
    joined: bool = False
    negative: bool = False
    sentences: bool = False


class Recipe(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """method: vlm (the picture is sent), rewrite (texts alone) or labels (about a class: `clipkit prompts generate`).

    prompt: of a record it may name {text} (the caption in use), {original}, {generated} (the newest caption that a
    model wrote), {examples} and {record.FIELD}; of a class {label} and {question}, which stands for each of `questions`
    in turn. system: as it is, nothing is put in.
    variants: answers of a record (of a question), each its own request; a variant draws its own `shots` of `examples`.
    answer: fields of the JSON object that is expected; none: the answer is a caption as it stands, or with `sentences`
    each of its sentences is. template: what an answer about a class becomes, of {label} and {answer}.
    """

    name: Slug
    about: Annotated[str, Meta(min_length=1)]
    paper: str = ""
    method: Literal["vlm", "rewrite", "labels"]
    system: str = ""
    prompt: Annotated[str, Meta(min_length=1)]
    questions: tuple[Annotated[str, Meta(min_length=1)], ...] = ()
    variants: Annotated[int, Meta(ge=1, le=100)] = 1
    shots: Annotated[int, Meta(ge=0)] = 0
    examples: tuple[Example, ...] = ()
    temperature: Annotated[float, Meta(ge=0, le=2)] = 0.0
    top_p: Annotated[float, Meta(gt=0, le=1)] = 1.0
    max_tokens: Annotated[int, Meta(ge=1, le=32768)] = 256
    sentences: bool = False
    answer: dict[str, Part] = {}
    template: str = "{answer}"
