"""What is read out of a language model's answer: captions, or the record's error. Nothing is guessed."""

from __future__ import annotations

import json
import re
from typing import Any, Final, NoReturn

from clipkit.errors import RecordError
from clipkit.prompts.recipe import Part, Recipe
from clipkit.prompts.sentences import split
from clipkit.stream.captions import Caption, cleaned

_FENCE: Final = re.compile(r"^```\w*\s*")  # what follows it is on the same line, or on the next
MOST_CHARACTERS: Final = 8000  # of one text
MOST_TEXTS: Final = 100  # of a list
_QUOTES: Final = {'"': '"', "'": "'", "“": "”", "‘": "’", "«": "»", "`": "`"}


def read(recipe: Recipe, answer: str, variant: int = 0, *, model: str = "", seed: int | None = None) -> list[Caption]:
    """The captions of an answer, in the order of the recipe's parts.

    Their source is RECIPE/PART, of plain answers RECIPE, or RECIPE/N where there are several variants (N from 1).
    Raises RecordError `bad-answer`: empty, too long, several lines where one caption is expected; not the JSON that the
    recipe asks for (a field missing, empty or of another type). Of JSON a code fence around it and what follows it is
    left out, of a plain answer white space and quotes around it; nothing else is repaired.
    """
    found: list[Caption] = []
    for part, text in texts(recipe, answer):
        source = f"{recipe.name}/{part.source}" if part else recipe.name
        if part is None and recipe.variants > 1:
            source = f"{recipe.name}/{variant + 1}"
        found.append(Caption(text, source, model, seed, part.negative if part else False))
    return found


def texts(recipe: Recipe, answer: str) -> list[tuple[Part | None, str]]:
    """The texts of an answer, each with the part that it is of; None where the answer is plain. Raises RecordError."""
    if not recipe.answer:
        return [(None, text) for text in _plain(answer, recipe.sentences)]
    values = _json(answer)
    found: list[tuple[Part | None, str]] = []
    for field, part in recipe.answer.items():
        found += [(part, text) for text in _part(field, part, values)]
    return found


def _plain(answer: str, sentences: bool) -> list[str]:
    text = _text(_unquoted(answer.strip()), "the answer", keep_lines=True)
    if sentences:
        return split(text) or _bad("no sentence in it")
    if len(text.splitlines()) > 1:
        _bad(f"several lines where one caption is expected: {_shown(text)}")
    return [text]


def _part(field: str, part: Part, values: dict[str, Any]) -> list[str]:
    """The captions in a field of the JSON that came."""
    if field not in values:
        _bad(f"no field {field!r}; it has {', '.join(map(repr, list(values)[:10])) or 'none'}")
    value = values[field]
    if not part.many:
        text = _text(value, repr(field), keep_lines=part.sentences)
        return (split(text) or _bad(f"no sentence in {field!r}")) if part.sentences else [text]
    if not isinstance(value, list):
        _bad(f"{field!r} is {_kind(value)}, not a list")
    if not 0 < len(value) <= MOST_TEXTS:
        _bad(f"{field!r} has {len(value)} texts, not 1 to {MOST_TEXTS}")
    each = list(dict.fromkeys(_text(text, f"an entry of {field!r}") for text in value))
    return [_text(", ".join(each), repr(field))] if part.joined else each


def _json(answer: str) -> dict[str, Any]:
    """The JSON object that an answer starts with, within a code fence or not."""
    text = _FENCE.sub("", answer.strip().removeprefix("\ufeff"))
    try:
        value, _ = json.JSONDecoder(object_pairs_hook=_once).raw_decode(text)
    except (ValueError, RecursionError) as error:
        _bad(f"not JSON ({error}): {_shown(answer)}")
    if not isinstance(value, dict):
        _bad(f"{_kind(value)}, not a JSON object: {_shown(answer)}")
    return value


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        raise ValueError("a field is there twice")
    return made


def _text(value: Any, what: str, *, keep_lines: bool = False) -> str:
    """A text that can be a caption. Raises RecordError."""
    if not isinstance(value, str):
        _bad(f"{what} is {_kind(value)}, not a text")
    try:
        value.encode()
    except UnicodeEncodeError:
        _bad(f"{what} holds half a character")
    text = "\n".join(map(cleaned, value.splitlines())).strip() if keep_lines else cleaned(value)
    if not text:
        _bad(f"{what} is empty")
    if len(text) > MOST_CHARACTERS:
        _bad(f"{what} has {len(text):,} characters, more than {MOST_CHARACTERS:,}")
    return text


def _unquoted(text: str) -> str:
    """Without the quotes around all of it: `"a" and "b"` keeps its own."""
    inner = text[1:-1]
    if len(text) > 2 and _QUOTES.get(text[0]) == text[-1] and text[0] not in inner and text[-1] not in inner:
        return inner.strip()
    return text


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a text", bool: "a truth value", type(None): "null"}
    return names.get(type(value), "a number")


def _shown(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:59] + "…")


def _bad(message: str) -> NoReturn:
    raise RecordError("bad-answer", f"the model's answer: {message}", "another seed, model or prompt may do better")
