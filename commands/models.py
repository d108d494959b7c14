"""List the models that can be named, or show one.

Group: About

FILTER is part of a name or a glob. `clipkit models info NAME` shows one model, or an architecture and its weights:
sizes, preprocessing, activation, where the weights come from and whether they are on this machine. Asks no network.

Example:

    clipkit models
    clipkit models 'ViT-B-*laion*'
    clipkit models siglip --json | jq -r 'select(.cached).id'
    clipkit models info ViT-B-32:laion2b_s34b_b79k
"""

import sys
from typing import Annotated

from typer import Argument, Option

from clipkit.errors import ExitCode, UsageError


def run(
    wanted: Annotated[
        str | None, Argument(metavar="[FILTER]", help="Part of a name, a glob, a folder; or info.")
    ] = None,
    name: Annotated[str | None, Argument(metavar="[NAME]", help="After info: the model to show.")] = None,
    as_json: Annotated[bool, Option("--json", help="Records, also on a terminal.")] = False,
) -> ExitCode:
    from clipkit.models.describe import available, describe
    from clipkit.stream.record import encode_json
    from clipkit.stream.table import Column, TableSink

    if (wanted == "info") != (name is not None):
        raise UsageError("expected a filter, or info and a name", "for example: clipkit models info ViT-B-32")
    records = as_json or not sys.stdout.isatty()
    if name is not None:
        shown = describe(name)
        if records:
            print(encode_json(shown).decode())
        else:
            show(shown)
        return ExitCode.OK
    table = TableSink(
        (
            Column("model", 44, lambda r: r["id"]),
            Column("here", 4, lambda r: "yes" if r["cached"] else ""),
            Column("from", 50, lambda r: r["source"]),
        )
    )
    for row in available(wanted):
        if records:
            print(encode_json(row).decode())
        else:
            table.write(encode_json(row), "")
    return ExitCode.OK


def show(described: dict[str, object], indent: str = "") -> None:
    """A description as lines; objects indented."""
    width = max(map(len, described))
    for key, value in described.items():
        if isinstance(value, dict) and value:
            print(f"{indent}{key}")
            show(value, indent + "  ")
        else:
            print(f"{indent}{key:<{width}}  {said(value)}".rstrip())


def said(value: object) -> str:
    """A value as a person reads it."""
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    return (
        {True: "yes", False: "no", None: "-"}.get(value, str(value)) if isinstance(value, bool | None) else str(value)
    )
