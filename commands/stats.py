"""Sum up records: counts, values, quantiles, histograms.

Group: Records

Prints a table: of each field how many records have it, of what types, how many different values and which are the most
frequent; of numbers the quantiles and a histogram. Objects are taken apart one level: scores.clip. Errors and drops
are counted by kind; records with an error count there alone. Quantiles are exact: numbers lie in temporary files, and
one field at a time is sorted in memory (8 bytes a number). Of texts, 100,000 values a field are told apart. Exits
with 3 if lines could not be read. Reads everything first.

Example:

    clipkit stats records.jsonl
    clipkit stats records.jsonl --by scores,label
    clipkit stats records.jsonl --json | jq .fields.width.numbers.p50
"""

import sys
from typing import Annotated

from typer import Option

from clipkit import pipeline
from clipkit.errors import ExitCode
from clipkit.options import InputOptions


def run(
    io: InputOptions,
    by: Annotated[
        list[str] | None, Option(metavar="FIELD,...", help="These fields alone; scores is all that is in it.")
    ] = None,
    as_json: Annotated[bool, Option("--json", help="One JSON object, with more quantiles and bins.")] = False,
) -> ExitCode:
    from clipkit.stages.select import parse_names
    from clipkit.stream.progress import Progress
    from clipkit.stream.record import encode_json
    from clipkit.stream.sink import StdoutSink
    from clipkit.stream.stats import Stats
    from clipkit.stream.stats_table import lines_of
    from clipkit.terminal import printable

    stats = Stats(parse_names(by or []))
    source = pipeline.source(io, "stats")
    try:
        with Progress("stats", source.total, not io.quiet and sys.stderr.isatty()) as progress:
            for item in source:
                stats.add(item)
                progress.step(stats.unreadable.total())
        summary = stats.summary()
    finally:
        stats.close()
    if as_json:  # UTF-8, whatever the terminal's encoding is
        out = StdoutSink()
        out.write(encode_json(summary), "")
        out.commit()
    else:
        for line in lines_of(summary, sys.stdout.encoding):
            print(line)
    for notice in [] if io.quiet else stats.notices():
        print(printable(f"clipkit stats: {notice}"), file=sys.stderr)
    return ExitCode.SOME_FAILED if stats.unreadable else ExitCode.OK
