"""Fit the accuracy of classes to how often they were seen.

Group: Curate

Accuracy grows with the logarithm of a concept's count in the training set (Udandarao et al., 2024). The results are
records with `label` and `pred`, as zeroshot writes them, or a record a class with its `accuracy`; the counts are those
of `clipkit concepts count`, added up over parts. Prints the line, its 95 % interval (bootstrap over classes), the
correlations and the mean accuracy of each decade, as one record; or with --per-class each class and its distance from
the line. Classes that were never seen are left out and told. Reads everything first.

Example:

    clipkit zeroshot test.jsonl --labels @classes.txt -o results.jsonl
    clipkit concepts count captions.parquet --concepts @classes.txt -o counts.jsonl
    clipkit concepts curve results.jsonl --counts counts.jsonl -o fit.json
    clipkit concepts curve results.jsonl --counts counts.jsonl --per-class | clipkit sort --by residual | clipkit head
"""

from typing import Annotated, Literal

from typer import Option

from clipkit import pipeline
from clipkit.errors import ExitCode
from clipkit.options import StreamOptions


def run(
    io: StreamOptions,
    counts: Annotated[
        list[str], Option(metavar="FILE", help="Of `clipkit concepts count`; may be repeated: they add up.")
    ],
    by: Annotated[
        Literal["text", "image", "both"] | None,
        Option(help="Counts in captions, images or both at once. Default: the last of these that was counted."),
    ] = None,
    per_class: Annotated[
        bool, Option("--per-class", help="A record a class, rarest first, instead of the fit.")
    ] = False,
    seed: Annotated[int, Option(metavar="N", help="Of the bootstrap.")] = 0,
) -> ExitCode:
    from clipkit.stages.curve import CLASS_COLUMNS, FIT_COLUMNS, Curve

    stage = Curve({"counts": counts, "by": by, "per_class": per_class, "seed": seed})
    columns = CLASS_COLUMNS if per_class else FIT_COLUMNS
    return pipeline.stream(stage, io, columns=columns, reads={"--counts": counts})
