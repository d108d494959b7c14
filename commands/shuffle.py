"""Put records in a random order.

Group: Records

By hash of the id, so the order depends on the records and the seed alone, not on the order they came in. Sorts on disk,
in 128 MiB pieces (in the folder TMPDIR names). Reads everything first.

Example:

    clipkit shuffle records.jsonl -o shuffled.jsonl
    clipkit shuffle photos/ --seed 1 | clipkit head -n 100
"""

from typing import Annotated

from typer import Option

from clipkit import pipeline
from clipkit.errors import ExitCode
from clipkit.options import StreamOptions


def run(
    io: StreamOptions,
    seed: Annotated[int, Option(metavar="N", help="Another number, another order.")] = 0,
) -> ExitCode:
    from clipkit.stages.order import Shuffle
    from clipkit.stages.select import RECORD_COLUMNS

    stage = Shuffle({"seed": seed})
    return pipeline.stream(stage, io, columns=RECORD_COLUMNS, order=stage.key)
