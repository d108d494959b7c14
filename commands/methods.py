"""List the methods that verbs offer by name.

Group: About

Without KIND, all kinds. Packages can add methods: those have the package's name beside them.

Example:

    clipkit methods
    clipkit methods decisions --json
"""

import json
from typing import Annotated

import typer

from clipkit.errors import UsageError
from clipkit.methods import REGISTRIES


def run(
    kind: Annotated[
        str | None,
        typer.Argument(
            metavar="[KIND]", help="Only this kind.", autocompletion=lambda: list(REGISTRIES), show_default=False
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a method.")] = False,
) -> None:
    if kind is not None and kind not in REGISTRIES:
        raise UsageError(f"there is no kind of methods called {kind!r}", f"there are: {', '.join(REGISTRIES)}")
    for registry in (REGISTRIES[kind],) if kind else REGISTRIES.values():
        entries = sorted(registry, key=lambda entry: entry.name)
        if as_json:
            for entry in entries:
                print(json.dumps({"kind": registry.kind, "name": entry.name, "summary": entry.summary}))
            continue
        width = max((len(entry.name) for entry in entries), default=0)
        print(registry.kind)
        for entry in entries:
            print(f"  {entry.name:<{width}}  {entry.summary}")
