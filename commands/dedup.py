"""Drop duplicates: equal, nearly equal, or alike in meaning.

Group: Curate

Two records are duplicates if any of the methods says so: bytes, pixels, phash, dhash, url, text, semantic (see
`clipkit methods dedupers`). What stays is written byte for byte. With --against also what is near a reference set
goes, such as a test set's. Reads everything first.

Example:

    clipkit dedup photos/ --by phash -o kept.jsonl
    clipkit dedup pairs.jsonl --by url,text --keep best --best-by scores.clip --mark
    clipkit dedup photos/ --by semantic --eps 0.03 --audit 1000 --report counts.json -o kept.jsonl
    clipkit dedup train.jsonl --by semantic --against test-features/ --only-against
"""

from typing import Annotated, Literal

from typer import Option

from clipkit import pipeline
from clipkit.errors import ExitCode
from clipkit.options import Features, ImageOptions, ModelOptions, StreamOptions


def run(
    io: StreamOptions,
    images: ImageOptions,
    model: ModelOptions,
    by: Annotated[str, Option(metavar="NAME,...", help="bytes, pixels, phash, dhash, url, text, semantic.")],
    hamming: Annotated[
        int | None,
        Option(min=0, max=16, metavar="BITS", help="phash, dhash: at most so many of 64 differ. Default: 6."),
    ] = None,
    eps: Annotated[
        float | None, Option(metavar="E", help="semantic: a cosine over 1 - E is a duplicate. Default: 0.03.")
    ] = None,
    target_fraction: Annotated[
        float | None, Option(metavar="F", help="semantic: instead of --eps, keep this part of the records.")
    ] = None,
    rule: Annotated[
        Literal["chain", "greedy", "component"],
        Option(help="What goes: what is near any earlier one, near an earlier one kept, or all but one of a group."),
    ] = "chain",
    keep: Annotated[
        Literal["first", "best", "largest", "hard", "easy"] | None,
        Option(
            help="Who comes earlier: the input's first, highest --best-by, most pixels, farthest from (hard) or "
            "nearest to its cluster's centre. Default: hard with semantic, else first."
        ),
    ] = None,
    best_by: Annotated[
        str | None, Option(metavar="FIELD", help="The number of --keep best, such as scores.clip.")
    ] = None,
    mark: Annotated[
        bool, Option("--mark", help="Keep them all, and say in `drop` and `dup` who goes for whom.")
    ] = False,
    k: Annotated[
        int | None,
        Option(min=1, metavar="N", help="semantic: clusters. Default: 1 up to 32,768 images, then 4 sqrt(images)."),
    ] = None,
    assign: Annotated[
        int | None,
        Option(
            min=1, metavar="N", help="semantic: clusters an image is compared in; 1 is the paper's rule. Default: 6."
        ),
    ] = None,
    audit: Annotated[
        int, Option(min=0, metavar="N", help="semantic: compare N images with all, and say what the clusters missed.")
    ] = 0,
    against: Annotated[
        list[str] | None,
        Option(metavar="STORE|FILE", help="Drop what is near these too: a feature store, or records; may be repeated."),
    ] = None,
    only_against: Annotated[
        bool, Option("--only-against", help="Compare with --against alone, not the records with each other.")
    ] = False,
    features: Features = None,
) -> ExitCode:
    from clipkit.stages.dedup import Dedup
    from clipkit.stages.select import RECORD_COLUMNS, parse_names

    config = pipeline.model_config(model, images, features) | {
        "by": parse_names([by]),
        "hamming": hamming,
        "eps": eps,
        "target_fraction": target_fraction,
        "rule": rule,
        "keep": keep,
        "best_by": best_by,
        "k": k,
        "assign": assign,
        "audit": audit,
        "against": against or [],
        "only_against": only_against,
        "mark": mark,
    }
    runtime = pipeline.runtime(io, images, model) | {"on_error": io.on_error}
    reads = {"--against": against or []}
    return pipeline.stream(Dedup(config, runtime), io, columns=RECORD_COLUMNS, mark=mark, reads=reads)
