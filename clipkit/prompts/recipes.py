"""Recipes by name, of those that the package carries, or by path: read and checked before anything is asked."""

from __future__ import annotations

import re
import tomllib
from difflib import get_close_matches
from importlib import resources
from pathlib import Path
from typing import Final

import msgspec

from clipkit.errors import UsageError
from clipkit.prompts import placeholders
from clipkit.prompts.recipe import Recipe

_SUFFIX: Final = ".toml"
_MOST_BYTES: Final = 1 << 20
_OF_RECORDS: Final = ("text", "original", "generated", "examples")
_OF_LABELS: Final = ("label", "question")
_FIELD: Final = "record."  # {record.FIELD}: any other field


def load(name: str) -> Recipe:
    """A recipe by its name, or by the path of a TOML file (with a slash, or .toml at its end).

    Raises UsageError, with the file and where possible the line, for what cannot be read or is no recipe.
    """
    return parse(source(name), name if _is_path(name) else name + _SUFFIX)


def source(name: str) -> str:
    """The text of a recipe's file, as it stands. Raises UsageError."""
    if _is_path(name):
        return _read(Path(name).expanduser())
    known = carried()
    if name not in known:
        close = get_close_matches(name, known, 1)
        hint = (
            f"did you mean {close[0]}?" if close else f"there are {', '.join(known)}; a file is given as ./{name}.toml"
        )
        raise UsageError(f"no recipe is called {name!r}", hint)
    return (resources.files(__package__) / (name + _SUFFIX)).read_text(encoding="utf-8")


def carried() -> list[str]:
    """The names of the recipes that the package carries, sorted."""
    found = (path.name for path in resources.files(__package__).iterdir())
    return sorted(name.removesuffix(_SUFFIX) for name in found if name.endswith(_SUFFIX))


def listing() -> list[Recipe]:
    """All recipes that the package carries."""
    return [load(name) for name in carried()]


def parse(text: str, where: str) -> Recipe:
    """A recipe from TOML. where: the file, for messages. Raises UsageError with the line."""
    try:
        values = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        found = re.fullmatch(r"(.*) \(at line (\d+), column \d+\)", str(error), re.DOTALL)
        message, line = (found[1], int(found[2])) if found else (str(error), None)
        raise _refused(f"not TOML: {message[:1].lower()}{message[1:]}", where, line) from None
    try:
        recipe = msgspec.convert(values, Recipe)
    except msgspec.ValidationError as error:
        message, _, path = str(error).partition(" - at ")
        keys = re.findall(r"\.([\w-]+)", path) or re.findall(r"unknown field `([^`]+)`", message)
        at = f"{'.'.join(keys)}: " if path and keys else ""
        said = message[:1].lower() + message[1:]
        raise _refused(
            at + said.replace("object", "recipe" if not path else "table"), where, _line_of(text, keys)
        ) from None
    _check(recipe, text, where)
    return recipe


def _check(recipe: Recipe, text: str, where: str) -> None:
    """What the types don't say."""

    def refuse(message: str, key: str, hint: str | None = None) -> UsageError:
        return _refused(message, where, _line_of(text, [key]), hint)

    known = _OF_LABELS if recipe.method == "labels" else _OF_RECORDS
    for key, prompt, names in (
        ("prompt", recipe.prompt, known),
        *(("questions", question, ("label",)) for question in recipe.questions),
        ("template", recipe.template, ("label", "answer")),
    ):
        for name in placeholders.names(prompt):
            if name not in names and not (names is _OF_RECORDS and name.startswith(_FIELD)):
                fields = f" and {{{_FIELD}FIELD}}" if names is _OF_RECORDS else ""
                hint = f"it may name {', '.join(f'{{{each}}}' for each in names)}{fields}"
                line = next((n for n, line in enumerate(text.splitlines(), 1) if f"{{{name}}}" in line), None)
                raise _refused(f"{key} names {{{name}}}, which nothing stands for", where, line, hint)
    named = placeholders.names(recipe.prompt)
    if recipe.shots > len(recipe.examples):
        raise refuse(f"shots is {recipe.shots}, and there are {len(recipe.examples)} examples", "shots")
    if bool(recipe.shots) != ("examples" in named):
        raise refuse(
            "shots of examples and {examples} in the prompt go together", "shots" if recipe.shots else "prompt"
        )
    if recipe.method == "rewrite" and not set(named) - {"examples"}:
        raise refuse("the prompt names nothing of the record", "prompt", "name {text}, for example")
    if bool(recipe.questions) != ("question" in named):
        raise refuse(
            "questions and {question} in the prompt go together", "questions" if recipe.questions else "prompt"
        )
    if recipe.method == "labels" and "label" not in [*named, *_names(recipe.questions)]:
        raise refuse("neither the prompt nor a question names {label}", "prompt")
    if recipe.method == "labels" and "answer" not in placeholders.names(recipe.template):
        raise refuse("the template doesn't name {answer}", "template")
    for field, part in recipe.answer.items():
        if part.joined and not part.many:
            raise refuse(f"answer.{field}: joined is about many", field)


def _names(questions: tuple[str, ...]) -> set[str]:
    """What each of some questions names."""
    return set.intersection(*(set(placeholders.names(question)) for question in questions)) if questions else set()


def _is_path(name: str) -> bool:
    return "/" in name or "\\" in name or name.endswith(_SUFFIX)


def _read(path: Path) -> str:
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise UsageError(f"{path}: more than {_MOST_BYTES >> 20} MiB, which no recipe has")
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: not UTF-8 (byte {error.start})", "convert it, e.g. with iconv") from None
    except OSError as error:
        hint = "clipkit prompts show NAME > mine.toml makes one to change"
        raise UsageError(f"cannot read the recipe {path}: {error.strerror}", hint) from None


def _line_of(text: str, keys: list[str]) -> int | None:
    """The line that speaks of the last of some nested keys, as far as can be told."""
    for key in reversed(keys):
        said = re.compile(rf"\s*(?:\[+[^\]]*\b{re.escape(key)}\s*\]+|[\"']?{re.escape(key)}[\"']?\s*=)")
        for number, line in enumerate(text.splitlines(), 1):
            if said.match(line):
                return number
    return None


def _refused(message: str, where: str, line: int | None, hint: str | None = None) -> UsageError:
    place = f"{where}:{line}" if line else where
    return UsageError(message, hint or "clipkit prompts show laclip prints one that is right", where=place)
