"""Keep the first records.

Group: Records

Stops reading as soon as it has them. Records come out byte for byte as they went in. Streams.

Example:

    clipkit head -n 3 records.jsonl
    clipkit head photos/ -n 100 | clipkit zeroshot --labels cats,dogs
"""

from dataclasses import replace
from typing import Annotated

from typer import Option

from clipkit import pipeline
from clipkit.errors import ExitCode
from clipkit.options import StreamOptions


def run(
    io: StreamOptions,
    count: Annotated[int, Option("-n", "--count", min=0, metavar="N", help="How many.")] = 10,
) -> ExitCode:
    from clipkit.stages.select import RECORD_COLUMNS, Head

    limit = count if io.limit is None else min(count, io.limit)
    return pipeline.stream(Head({}), replace(io, limit=limit), columns=RECORD_COLUMNS)
