"""Sort records by what their fields say.

Group: Records

false, true, numbers by value, texts by code point, lists, objects; records that lack the field come last either way,
and what came with an error after those. Equal ones are in the order of their ids, then as they came. Sorts on disk,
in 128 MiB pieces (in the folder TMPDIR names). Reads everything first.

Example:

    clipkit sort records.jsonl --by scores.clip --desc | clipkit head -n 20
    clipkit sort records.jsonl --by label,-scores.clip -o sorted.jsonl
"""

from functools import partial
from typing import TYPE_CHECKING, Annotated

from typer import Option

from clipkit import pipeline
from clipkit.errors import ExitCode
from clipkit.options import StreamOptions

if TYPE_CHECKING:
    from clipkit.stream.record import Record


def run(
    io: StreamOptions,
    by: Annotated[
        list[str], Option(metavar="FIELD,...", help="The fields, the most important first; -FIELD: largest first.")
    ],
    desc: Annotated[bool, Option("--desc", help="Largest first, by all fields.")] = False,
) -> ExitCode:
    from clipkit.stages.order import Sort, parse_order
    from clipkit.stages.select import RECORD_COLUMNS
    from clipkit.stream.table import Column

    order = parse_order(by, desc)
    shown = {column.head for column in RECORD_COLUMNS}
    columns = [Column(name, 14, partial(_cell, name)) for name, _ in order if name not in shown]
    stage = Sort({"by": order})
    return pipeline.stream(stage, io, columns=(*columns, *RECORD_COLUMNS), order=stage.key)


def _cell(name: str, record: "Record") -> str:
    value = record.lookup(name)
    return "" if value is None else str(value)
