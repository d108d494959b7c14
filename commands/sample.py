"""Keep a random part of the records.

Group: Records

By hash of the id: the same records on every machine, in any order, and a larger sample of one seed contains the smaller
ones. Kept records come out byte for byte as they went in. --fraction alone streams, and its size is approximate.
With -n, --per, --exact, --stratify or --weight: Reads everything first.

Example:

    clipkit sample records.jsonl --fraction 0.01
    clipkit sample records.jsonl -n 1000 --stratify label
    clipkit sample records.jsonl --per 16 --stratify label --seed 1
    clipkit sample records.jsonl -n 1000 --weight scores.aesthetic
"""

from typing import Annotated

from typer import Option

from clipkit import pipeline
from clipkit.errors import ExitCode, UsageError
from clipkit.options import StreamOptions


def run(
    io: StreamOptions,
    fraction: Annotated[
        float | None, Option("-f", "--fraction", min=0, max=1, metavar="F", help="This part of them, from 0 to 1.")
    ] = None,
    count: Annotated[int | None, Option("-n", "--count", min=0, metavar="K", help="Exactly so many.")] = None,
    per: Annotated[
        int | None, Option(min=0, metavar="K", help="So many of each value of --stratify, or all it has.")
    ] = None,
    exact: Annotated[bool, Option("--exact", help="Exactly --fraction of them, rounded.")] = False,
    stratify: Annotated[
        str | None, Option(metavar="FIELD", help="Keep the proportions of this field's values: label.")
    ] = None,
    weight: Annotated[
        str | None, Option(metavar="FIELD", help="Draw in proportion to this field, without replacement.")
    ] = None,
    seed: Annotated[int, Option(metavar="N", help="Another number, another sample.")] = 0,
) -> ExitCode:
    from clipkit.stages.sample import Sample, SampleExact
    from clipkit.stages.select import RECORD_COLUMNS

    if sum(size is not None for size in (fraction, count, per)) != 1:
        raise UsageError("how many? say one of --fraction, -n and --per", "for example: --fraction 0.1")
    if per is not None and not stratify:
        raise UsageError("--per needs --stratify FIELD: of each what?", "for example: --stratify label")
    if exact and fraction is None:
        raise UsageError("--exact is about --fraction", "-n and --per are exact as they are")
    if fraction is not None and not (exact or stratify or weight):
        return pipeline.stream(Sample({"fraction": fraction, "seed": seed}), io, columns=RECORD_COLUMNS)
    config = {
        "count": count,
        "fraction": fraction,
        "per": per,
        "stratify": stratify,
        "weight": weight,
        "seed": seed,
    }
    return pipeline.stream(SampleExact(config), io, columns=RECORD_COLUMNS)
