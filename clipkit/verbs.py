"""Which verbs there are: files of commands/ and entry points of other packages, read without importing any.

A file `count_words.py` is the verb `count-words`; `concepts__count.py` is `concepts count`, of the family `concepts`.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from clipkit.errors import ClipkitError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

ENTRY_POINTS = "clipkit.commands"
OTHER_GROUP = "More"
PLUGIN_GROUP = "Plugins"


@dataclass(frozen=True, slots=True)
class Verb:
    """A verb, as its file describes it. distribution: the package that brought it; "" if clipkit did."""

    name: str
    module: str
    summary: str
    group: str = OTHER_GROUP
    distribution: str = ""


def canonical(name: str) -> str:
    """What two spellings of one verb share: `zero-shot`, `zero_shot` and `zeroshot`."""
    return name.replace("-", "").replace("_", "").replace(" ", "")


def find(name: str) -> Verb | None:
    """The verb of this name, a built-in before a plugin; other packages are only looked at if no built-in has it."""
    wanted = canonical(name)
    for path in _files():
        if canonical(path.stem) == wanted:
            return _builtin(path)
    return next((verb for verb in plugins() if canonical(verb.name) == wanted), None)


def typed(words: list[str]) -> tuple[Verb | None, list[str]]:
    """The verb that a command line begins with, of two words before one of one, and what comes after it."""
    if len(words) > 1:
        wanted = canonical(words[0]), canonical(words[1])
        for path in _files():
            family, two, member = path.stem.partition("__")
            if two and (canonical(family), canonical(member)) == wanted:
                return _builtin(path), words[2:]
    return find(words[0]), words[1:]


def family(name: str) -> list[Verb]:
    """The verbs of two words whose first is this."""
    wanted = canonical(name)
    return [
        _builtin(path) for path in _files() if "__" in path.stem and canonical(path.stem.partition("__")[0]) == wanted
    ]


def misspelt(verb: Verb, rest: list[str]) -> str | None:
    """The verb of two words that someone may have meant who typed the first, which is a verb too, and `rest`.

    None where the next word is an option, or a file or folder: then it is a source of that verb.
    """
    if not rest or rest[0].startswith("-") or os.path.lexists(rest[0]):
        return None
    members = {member.name.partition(" ")[2]: member.name for member in family(verb.name)}
    if not members:
        return None
    from difflib import get_close_matches

    return next((members[match] for match in get_close_matches(rest[0], members)), None)


def builtins() -> list[Verb]:
    """The verbs that clipkit brings, by name."""
    return [_builtin(path) for path in _files()]


def plugins() -> list[Verb]:
    """The verbs that other installed packages bring, by name; none if CLIPKIT_PLUGINS is set and empty."""
    if os.environ.get("CLIPKIT_PLUGINS") == "":
        return []
    from importlib.metadata import entry_points

    points = sorted(entry_points(group=ENTRY_POINTS), key=lambda point: (point.name, _distribution(point)))
    return [
        Verb(point.name, point.module, _plugin_summary(point), PLUGIN_GROUP, _distribution(point)) for point in points
    ]


def available() -> tuple[list[Verb], list[Verb]]:
    """All verbs, and the plugins' that cannot be reached since another verb has their name."""
    verbs: list[Verb] = []
    hidden: list[Verb] = []
    taken: set[str] = set()
    for verb in [*builtins(), *plugins()]:
        (hidden if canonical(verb.name) in taken else verbs).append(verb)
        taken.add(canonical(verb.name))
    return verbs, hidden


def grouped(verbs: list[Verb]) -> dict[str, list[Verb]]:
    """Verbs under their headings, in the order of `clipkit --help`."""
    order: tuple[str, ...] = importlib.import_module("clipkit.commands").GROUPS
    found: dict[str, list[Verb]] = {group: [] for group in order}
    for verb in sorted(verbs, key=lambda verb: (verb.group == PLUGIN_GROUP, verb.group, verb.name)):
        found.setdefault(verb.group, []).append(verb)
    return {group: members for group, members in found.items() if members}


def close_to(name: str) -> list[str]:
    """Names of verbs that someone who typed `name` may have meant, best first."""
    from difflib import get_close_matches

    names = {canonical(verb.name): verb.name for verb in available()[0]}
    return [names[match] for match in get_close_matches(canonical(name), names)]


def load(verb: Verb) -> ModuleType:
    """Import a verb's module. Whatever a plugin raises becomes one ClipkitError that names its distribution."""
    if not verb.distribution:
        return importlib.import_module(verb.module)
    try:
        module = importlib.import_module(verb.module)
        if not callable(getattr(module, "run", None)):
            raise AttributeError(f"module {verb.module} has no function run")
    except Exception as error:
        raise ClipkitError(
            f"this verb comes from {verb.distribution}, which cannot be loaded: {type(error).__name__}: {error}",
            f"upgrade or remove {verb.distribution}; CLIPKIT_PLUGINS= (empty) leaves all plugins out",
        ) from error
    return module


def _files() -> list[Path]:
    from importlib.util import find_spec

    spec = find_spec("clipkit.commands")
    if spec is None or not spec.submodule_search_locations:
        raise ClipkitError("the verbs are not installed", "run: pip install -e . (in the folder of pyproject.toml)")
    folder = Path(spec.submodule_search_locations[0])
    return sorted(path for path in folder.glob("*.py") if not path.stem.startswith("_"))


def _builtin(path: Path) -> Verb:
    lines = list(docstring_lines(path))
    group = next((line.removeprefix("Group:").strip() for line in lines if line.startswith("Group:")), OTHER_GROUP)
    name = path.stem.replace("__", " ").replace("_", "-")
    return Verb(name, f"clipkit.commands.{path.stem}", lines[0] if lines else "", group)


def docstring_lines(path: Path) -> Iterator[str]:
    """The lines of the docstring a file begins with, without running or parsing the file."""
    with path.open(encoding="utf-8", errors="replace") as file:
        for number, line in enumerate(file):
            if number == 0:
                if not line.startswith('"""'):
                    return
                line = line[3:]
            text, end, _ = line.partition('"""')
            yield text.rstrip()
            if end:
                return


def _distribution(point: EntryPoint) -> str:
    return point.dist.name if point.dist else "an unknown package"


def _plugin_summary(point: EntryPoint) -> str:
    """The first line of the plugin's file where it can be found without importing the packages it lies in."""
    from importlib.machinery import PathFinder

    path, spec, name = None, None, ""
    for part in point.module.split("."):
        name = f"{name}.{part}" if name else part
        spec = PathFinder.find_spec(name, path)
        if spec is None:
            break
        path = spec.submodule_search_locations
    if spec and spec.has_location and spec.origin and spec.origin.endswith(".py"):
        try:
            return next(docstring_lines(Path(spec.origin)), "") or f"From {_distribution(point)}."
        except OSError as error:
            print(f"clipkit: {_distribution(point)}: {error}", file=sys.stderr)
    return f"From {_distribution(point)}."
