"""Divide records into train, val and test.

Group: Records

Adds `split`. By hash of the id: a record stays where it is whatever is added, and however the input is ordered or
parted. --group keeps together what shares a value (an album, a product). Streams. With --stratify every class is
divided alike, and the whole set decides: Reads everything first. A record that has another split already is an error.
With -o DIR/ the records go to DIR/train.jsonl, DIR/val.jsonl and DIR/test.jsonl, those with an error to
DIR/errors.jsonl.

Example:

    clipkit split records.jsonl -o sets/
    clipkit split records.jsonl --ratios train=0.9,test=0.1 --group album
    clipkit split records.jsonl --stratify label --seed 1 | clipkit stats --by split,label
"""

import os
import sys
from typing import Annotated

from typer import Option

from clipkit import pipeline
from clipkit.errors import ExitCode, UsageError
from clipkit.options import StreamOptions
from clipkit.terminal import printable


def run(
    io: StreamOptions,
    ratios: Annotated[str, Option(metavar="NAME=R,...", help="Of train, val and test; they add up to 1.")] = (
        "train=0.8,val=0.1,test=0.1"
    ),
    group: Annotated[str | None, Option(metavar="FIELD", help="Records with one value stay together.")] = None,
    stratify: Annotated[str | None, Option(metavar="FIELD", help="The same ratios for each value: label.")] = None,
    seed: Annotated[int, Option(metavar="N", help="Another number, another split.")] = 0,
    overwrite: Annotated[bool, Option("--overwrite", help="Replace a split that a record has.")] = False,
) -> ExitCode:
    from clipkit.stages.select import RECORD_COLUMNS
    from clipkit.stages.split import SPLITS, Split, SplitStratified, parse_ratios
    from clipkit.stream.folder import FolderSink
    from clipkit.stream.table import Column

    if group and stratify:
        raise UsageError("--group and --stratify: groups that stay whole cannot be divided alike", "choose one")
    parsed = parse_ratios(ratios)
    folder = io.out is not None and (io.out.endswith("/") or os.path.isdir(io.out))
    config = {"ratios": parsed, "seed": seed, "overwrite": overwrite, "to_outputs": folder}
    stage = SplitStratified({**config, "stratify": stratify}) if stratify else Split({**config, "group": group})
    if io.out and folder:
        sink = FolderSink(io.out, tuple(parsed), [name for name in SPLITS if name not in parsed])
        return pipeline.stream(stage, io, sink=sink, open_output=sink.open)
    if io.out and "." not in os.path.basename(io.out) and not (os.path.exists(io.out) or io.quiet or io.out == "-"):
        said = f"-o {io.out} is one file; -o {io.out}/ divides the records into a folder"
        print(printable(f"clipkit split: {said}"), file=sys.stderr)
    columns = (Column("split", 6, lambda r: str(r.get("split") or "")), *RECORD_COLUMNS)
    return pipeline.stream(stage, io, columns=columns)
