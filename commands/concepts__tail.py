"""List the rarest concepts of a set.

Group: Curate

Reads what `clipkit concepts count` wrote, of one run or of parts, which add up. Prints the rarest concepts first, ties
by name, each with its `count` and its `frequency` among all records: a list of the kind of Let It Wag! (Udandarao et
al., 2024). With -o FILE.txt only their names, one a line, as `--labels @FILE.txt` takes them. Reads everything first.

Example:

    clipkit concepts tail counts.jsonl
    clipkit concepts tail counts-*.jsonl --by text --below 5
    clipkit concepts tail counts.jsonl --count 290 -o tail.txt && clipkit zeroshot photos/ --labels @tail.txt
"""

from typing import Annotated, Literal

from typer import Option

from clipkit import pipeline
from clipkit.errors import ExitCode, UsageError
from clipkit.options import StreamOptions


def run(
    io: StreamOptions,
    by: Annotated[
        Literal["text", "image", "both"] | None,
        Option(help="Counts in captions, images or both at once. Default: the last of these that was counted."),
    ] = None,
    count: Annotated[int | None, Option(min=1, metavar="N", help="List the N rarest. Default: 100.")] = None,
    below: Annotated[int | None, Option(min=1, metavar="M", help="List those counted fewer than M times.")] = None,
) -> ExitCode:
    from clipkit.methods.concepts.counts import read_counts
    from clipkit.methods.concepts.tail import NameSink, tail
    from clipkit.stages.concepts import TAIL_COLUMNS, Tail
    from clipkit.stream.sink import check_writable

    for flag, given in (("--limit", io.limit), ("--shard", io.shard), ("--map", io.map)):
        if given is not None:
            raise UsageError(f"{flag} is about records, and these are counts", "leave it out")
    if count is None and below is None:
        count = 100
    counts = read_counts(io.sources or ["-"])
    rarest = tail(counts, by, count=count, below=below)
    sink = None
    if io.out and io.out.endswith(".txt"):
        check_writable(io.out, "-o")
        sink = NameSink(io.out)
    return pipeline.stream(
        Tail({"missing": counts.missing}),
        io,
        columns=TAIL_COLUMNS,
        records=rarest,
        sink=sink,
        reads={"SOURCE": io.sources},
    )
