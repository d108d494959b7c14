"""Rename, set, drop or keep fields.

Group: Records

Done in this order, whatever the order of the flags. Names may be dotted: scores.clip. A value that reads as JSON is
that JSON (3, true, ["a"]), any other is a string; '"3"' is the string 3. Streams.

Example:

    clipkit set records.jsonl --rename text=caption --value split=train --drop url,scores.old
    clipkit set records.jsonl --keep id,image,text,scores.clip
"""

from typing import Annotated

from typer import Option

from clipkit import pipeline
from clipkit.errors import ExitCode, UsageError
from clipkit.options import StreamOptions


def run(
    io: StreamOptions,
    rename: Annotated[list[str] | None, Option(metavar="NEW=OLD,...", help="Give fields a new name.")] = None,
    value: Annotated[list[str] | None, Option(metavar="NAME=VALUE", help="Set a field; may be repeated.")] = None,
    drop: Annotated[list[str] | None, Option(metavar="NAME,...", help="Leave these fields out.")] = None,
    keep: Annotated[list[str] | None, Option(metavar="NAME,...", help="Leave all other fields out.")] = None,
) -> ExitCode:
    from clipkit.stages.select import RECORD_COLUMNS, Set, parse_names, parse_renames, parse_values

    config = {
        "rename": parse_renames(rename or []),
        "values": parse_values(value or []),
        "drop": parse_names(drop or []),
        "keep": parse_names(keep or []),
    }
    if not any(config.values()):
        raise UsageError("nothing to do", "say --rename, --value, --drop or --keep")
    return pipeline.stream(Set(config), io, columns=RECORD_COLUMNS)
