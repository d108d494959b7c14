"""Show what each step did to one record.

Group: Records

Reads what the record says of itself: via, texts, pred, scores, drop and error. With the files of several steps, the
record in each. A table on a terminal, else one JSON object a record found. Streams.

Example:

    clipkit explain cats/7.jpg scored.jsonl
"""

import sys
from typing import Annotated

from typer import Argument, Option

from clipkit import pipeline
from clipkit.options import InputOptions


def run(
    name: Annotated[str, Argument(metavar="ID", help="The record's id.", show_default=False)],
    io: InputOptions,
    as_json: Annotated[bool, Option("--json", help="JSON, also on a terminal.")] = False,
) -> None:
    from clipkit.stages.explain import STORY_COLUMNS, describe, find, rows
    from clipkit.stream.record import encode_json
    from clipkit.stream.sink import StdoutSink
    from clipkit.stream.table import TableSink

    table = sys.stdout.isatty() and not as_json
    sink = TableSink(STORY_COLUMNS) if table else StdoutSink()
    for record in find(pipeline.source(io, "explain"), name):
        story = describe(record)
        for line in rows(story) if table else [encode_json(story)]:
            sink.write(line, record.origin)
    sink.commit()
