"""The recipes for people and programs."""

from __future__ import annotations

import shutil
import sys
import textwrap

import msgspec

from clipkit.prompts import recipes
from clipkit.prompts.recipe import Recipe
from clipkit.stream.record import encode_json
from clipkit.stream.table import coloured


def show_all(as_json: bool) -> None:
    """All recipes that the package carries: a table on a terminal, else a JSON object each."""
    found = recipes.listing()
    if as_json or not sys.stdout.isatty():
        for recipe in found:
            print(encode_json(msgspec.to_builtins(recipe)).decode())
        return
    rows = [("name", "for", "what"), *((recipe.name, recipe.method, _said(recipe)) for recipe in found)]
    first, second = (max(len(row[column]) for row in rows) for column in (0, 1))
    width = max(shutil.get_terminal_size((100, 24)).columns - first - second - 6, 32)
    for number, (name, method, what) in enumerate(rows):
        lines = textwrap.wrap(what, width)
        line = f"{name:<{first}}  {method:<{second}}  {lines[0]}".rstrip()
        print(f"\x1b[1m{line}\x1b[0m" if number == 0 and coloured(sys.stdout) else line)
        for more in lines[1:]:
            print(f"{'':<{first}}  {'':<{second}}  {more}")
    print(f"\nOne of them, to change: clipkit prompts show {found[0].name} > mine.toml")


def _said(recipe: Recipe) -> str:
    return f"{recipe.about} {recipe.paper and f'({_short(recipe.paper)})'}".rstrip()


def _short(paper: str) -> str:
    """Whose it is, and when."""
    return ", ".join(paper.split(", ")[:2])
