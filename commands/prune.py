"""Keep the part of a set that is worth most.

Group: Curate

All records are looked at together, mostly as clusters of features, and exactly so many are kept, byte for byte. With
--plan the allocation alone is written, a record a cluster, and nothing is cut. With --features and no SOURCE the
store's own records are read: so `random`, which opens no image, chooses among the same records as the others. See
`clipkit methods pruners`. Reads everything first.

Example:

    clipkit prune photos/ --method density --keep-fraction 0.3 --plan
    clipkit prune pairs.jsonl --method prototypes --keep 10000 --features store/ -o kept.jsonl
    clipkit prune scored.jsonl --method tldr --best-by scores.clip --mark
    clipkit prune --features store/ --method random --keep 10000 -o control.jsonl
"""

from typing import Annotated, Literal

from typer import Option

from clipkit import pipeline
from clipkit.errors import ExitCode, UsageError
from clipkit.options import Features, ImageOptions, ModelOptions, StreamOptions


def run(
    io: StreamOptions,
    images: ImageOptions,
    model: ModelOptions,
    method: Annotated[str, Option(metavar="NAME", help="density, prototypes, tldr, image-based or random.")],
    keep_fraction: Annotated[float | None, Option(metavar="F", help="Keep this part of the records, rounded.")] = None,
    keep: Annotated[int | None, Option(min=1, metavar="N", help="Keep so many.")] = None,
    by: Annotated[Literal["image", "text"] | None, Option(help="Whose features. Default: image.")] = None,
    k: Annotated[
        int | None,
        Option(min=1, metavar="K", help="Clusters. Default: the method's, fewer for a small set (docs/prune.md)."),
    ] = None,
    centroids: Annotated[
        str | None,
        Option(metavar="FILE", help="The clusters of the records' field `cluster`: then no image is opened."),
    ] = None,
    features: Features = None,
    mark: Annotated[bool, Option("--mark", help="Keep them all, and say in `drop` why one would go.")] = False,
    plan: Annotated[bool, Option("--plan", help="Write how many of each cluster would stay, and cut nothing.")] = False,
    seed: Annotated[int, Option(metavar="N", help="Another number: other random choices, and other clusters.")] = 0,
    tau: Annotated[
        float | None, Option(metavar="T", help="density: lower favours complex clusters more. Default: 0.1.")
    ] = None,
    neighbours: Annotated[
        int | None, Option(min=1, metavar="L", help="density: nearest clusters that complexity looks at. Default: 20.")
    ] = None,
    min_per_cluster: Annotated[
        int | None, Option(min=0, metavar="N", help="density: keep so many of each, if it has them. Default: 0.")
    ] = None,
    which: Annotated[
        Literal["hard", "easy"] | None, Option(help="prototypes: the farthest or the nearest. Default: hard.")
    ] = None,
    best_by: Annotated[str | None, Option(metavar="FIELD", help="tldr: a number, such as scores.clip.")] = None,
    best_fraction: Annotated[
        float | None, Option(metavar="F", help="tldr: only the best part by it is chosen from. Default: 0.5.")
    ] = None,
    every: Annotated[
        int | None, Option(min=1, metavar="N", help="tldr, without a size: every N-th of a cluster. Default: 5.")
    ] = None,
    reference: Annotated[
        list[str] | None,
        Option(metavar="SOURCE|STORE", help="image-based: images of what is wanted, or a store; may be repeated."),
    ] = None,
) -> ExitCode:
    from clipkit.stages.prune import PLAN_COLUMNS, prune
    from clipkit.stages.select import RECORD_COLUMNS

    if plan and mark:
        raise UsageError("--plan writes no records that --mark could mark", "say one of them")
    alone = pipeline.reads_store(io, features)
    flags = {"--by": by, "--k": k, "--model": model.model, "--features": None if alone else features}
    config = pipeline.model_config(model, images, features) | {
        "method": method,
        "options": {
            "tau": tau,
            "neighbours": neighbours,
            "min_per_cluster": min_per_cluster,
            "which": which,
            "every": every,
            "best_by": best_by,
            "best_fraction": best_fraction,
            "reference": reference or None,
        },
        "keep": keep,
        "keep_fraction": keep_fraction,
        "by": by or "image",
        "k": k,
        "centroids": centroids,
        "seed": seed,
        "plan": plan,
        "alone": alone,
        "given": [flag for flag, value in flags.items() if value is not None],
    }
    runtime = pipeline.runtime(io, images, model) | {"on_error": io.on_error, "workers": io.workers}
    columns = PLAN_COLUMNS if plan else RECORD_COLUMNS
    records = pipeline.store_records(str(features)) if alone else None
    reads = {"--centroids": [centroids] if centroids else [], "--reference": reference or []}
    return pipeline.stream(prune(config, runtime), io, columns=columns, records=records, mark=mark, reads=reads)
