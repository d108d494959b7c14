"""List the recipes of prompts, or print one to change.

Group: About

A recipe says what a language model is asked and how its answer is read: by `recaption --method vlm` of a picture, by
`recaption --method rewrite` of captions, by `prompts generate` of a class. NAME prints it as the TOML file that it is;
changed, that file is a recipe of your own. The name of a file instead checks it, and prints it.

Example:

    clipkit prompts show
    clipkit prompts show laclip > mine.toml
    clipkit recaption pairs.jsonl --recipe ./mine.toml --server http://localhost:8000/v1 -o mine.jsonl
"""

from typing import Annotated

from typer import Argument, Option

from clipkit.errors import UsageError


def run(
    name: Annotated[str | None, Argument(metavar="[NAME|FILE]", help="This recipe.", show_default=False)] = None,
    as_json: Annotated[bool, Option("--json", help="Of all, one JSON object each; also on a terminal.")] = False,
) -> None:
    from clipkit.prompts import listing, recipes

    if name is None:
        listing.show_all(as_json)
    elif as_json:
        raise UsageError("--json is about the list", f"clipkit prompts show {name}")
    else:
        recipes.load(name)
        print(recipes.source(name), end="")
