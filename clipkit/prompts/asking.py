"""What a recipe asks of one record: a system text and a user text."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from clipkit.errors import RecordError
from clipkit.prompts import placeholders
from clipkit.prompts.recipe import Example, Recipe
from clipkit.stream.captions import Caption, cleaned, original_of
from clipkit.stream.hashing import ticket
from clipkit.stream.record import Record

MOST_CHARACTERS: Final = 4000  # of a field; what is longer is cut
_MARKUP: Final = re.compile(r"<(?=\|)|\|(?=>)")  # <|im_start|> and the like, which some servers take for their own


def ask(recipe: Recipe, fields: Mapping[str, str], name: str, variant: int = 0, seed: int = 0) -> tuple[str, str]:
    """The system text ("" for none) and the user text of one request.

    fields: values of the placeholders, as `fields_of` makes them; each is put in on one line, cut to MOST_CHARACTERS,
    and is never looked at for placeholders: braces in captions mean nothing. Both texts are the content of messages:
    what a caption says cannot become a message of its own.
    name, variant, seed: draw the examples. Raises RecordError `missing-field` where a placeholder has no value.
    """
    values = {placeholder: one_line(text) for placeholder, text in fields.items()}
    if recipe.shots:
        shown = _drawn(recipe, name, variant, seed)
        values["examples"] = "\n".join(f"{example.before} => {example.after}" for example in shown)
    for placeholder in placeholders.names(recipe.prompt):
        if not values.get(placeholder):
            raise _missing(placeholder)
    return recipe.system, placeholders.fill(recipe.prompt, values)


def fields_of(recipe: Recipe, captions: Sequence[Caption], record: Record | None) -> dict[str, str]:
    """What the placeholders of a prompt stand for in a record; those of which it has nothing are left out.

    captions: those it has, the one in use first. `generated` is the last that a model wrote; one of this same recipe
    doesn't count, so that a second run is asked what the first was.
    """
    found: dict[str, str] = {}
    for name in placeholders.names(recipe.prompt):
        if name.startswith("record."):
            found[name] = _text_of(record, name.removeprefix("record."))
        elif name == "text" and captions:
            found[name] = captions[0].text
        elif name == "original":
            found[name] = original_of(captions)
        elif name == "generated":
            written = [c.text for c in captions if c.model and c.source.partition("/")[0] != recipe.name]
            found[name] = written[-1] if written else ""
    return {name: text for name, text in found.items() if text.strip()}


def one_line(text: str) -> str:
    """A text fit to be part of a prompt: on one line, without control characters and <|markup|>, not too long."""
    return _MARKUP.sub(lambda match: match[0] + " ", cleaned(text))[:MOST_CHARACTERS].rstrip()


def _drawn(recipe: Recipe, name: str, variant: int, seed: int) -> list[Example]:
    """The examples that a request shows, by hash of the record's name, the seed and the variant."""

    def drawn(number: int) -> bytes:
        return ticket(f"{name}\0{variant}\0{number}", seed, "prompt-examples")

    order = sorted(range(len(recipe.examples)), key=drawn)
    return [recipe.examples[number] for number in order[: recipe.shots]]


def _text_of(record: Record | None, field: str) -> str:
    """A field as text: a text, a number, or a list of these. Raises RecordError `bad-field`."""
    value = record.lookup(field) if record is not None else None
    values: list[Any] = value if isinstance(value, list) else [value] if value is not None else []
    if not all(isinstance(each, str | int | float) for each in values):
        raise RecordError("bad-field", f"field {field!r} is no text, and a prompt names it")
    return ", ".join(map(str, values))


def _missing(name: str) -> RecordError:
    if name == "generated":
        hint = "write one first: clipkit recaption --method coca, or vlm"
        return RecordError("missing-field", "the prompt names {generated}, and no model has written a caption", hint)
    field = name.removeprefix("record.")
    return RecordError("missing-field", f"the prompt names {{{name}}}, and the record has no {field}")
