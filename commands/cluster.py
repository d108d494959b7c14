"""Put images or captions that are alike into clusters.

Group: Curate

k-means over the features of all records. Adds `cluster`: `id`, and `dist`, how far the record is from the cluster's
centre (1 - cosine; with --euclidean the distance). The clusters are the same in whatever order records come. With
--save-centroids they can be used again: --centroids puts other records into the same clusters. With --features and no
SOURCE the store's own records are read. Reads everything first; with --centroids it streams.

Example:

    clipkit cluster photos/ --k 100 --save-centroids centroids.safetensors -o clustered.jsonl
    clipkit cluster more-photos/ --centroids centroids.safetensors -o more.jsonl
    clipkit cluster --features store/ --k auto --report counts.json -o clustered.jsonl
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
    k: Annotated[
        str | None, Option(metavar="K|auto", help="How many clusters; auto: sqrt(records / 2), rounded.")
    ] = None,
    by: Annotated[Literal["image", "text"] | None, Option(help="What is alike. Default: image.")] = None,
    spherical: Annotated[bool, Option("--spherical", help="By cosine, as without --euclidean.")] = False,
    euclidean: Annotated[
        bool, Option("--euclidean", help="By Euclidean distance; centres are means, not made unit length.")
    ] = False,
    init: Annotated[
        Literal["random", "k-means++"] | None, Option(help="How centres are first chosen. Default: k-means++.")
    ] = None,
    passes: Annotated[
        int | None,
        Option(
            min=0, metavar="N", help="Iterations over all records after those on a sample. Default: 3, if it is a part."
        ),
    ] = None,
    seed: Annotated[int | None, Option(metavar="N", help="Other clusters. Default: 0.")] = None,
    features: Features = None,
    save_centroids: Annotated[
        str | None, Option(metavar="FILE", help="Write the clusters here, for --centroids: .safetensors.")
    ] = None,
    centroids: Annotated[
        str | None, Option(metavar="FILE", help="Use these clusters instead: streams, and works with --shard.")
    ] = None,
) -> ExitCode:
    from clipkit.stages.cluster import COLUMNS, AssignClusters, Cluster

    making: dict[str, object] = {"--k": k, "--init": init, "--passes": passes, "--seed": seed}
    making |= {"--spherical": spherical or None, "--euclidean": euclidean or None, "--save-centroids": save_centroids}
    config = pipeline.model_config(model, images, features)
    runtime = pipeline.runtime(io, images, model)
    records = pipeline.store_records(str(features)) if pipeline.reads_store(io, features) else None
    if centroids:
        if given := [flag for flag, value in making.items() if value is not None]:
            raise UsageError(f"{given[0]} is about making clusters, and --centroids has them", "leave one of them out")
        assigning = AssignClusters(config | {"by": by, "centroids": centroids}, runtime)
        return pipeline.stream(assigning, io, columns=COLUMNS, records=records, reads={"--centroids": [centroids]})
    if spherical and euclidean:
        raise UsageError("--spherical or --euclidean, not both")
    if k is None:
        raise UsageError("how many clusters?", "for example: --k 100, or --k auto")
    if k != "auto" and not (k.isdecimal() and len(k) < 19 and int(k)):  # more digits than a count can have
        raise UsageError(f"--k takes a number from 1, or auto, not {k[:40]!r}", "for example: --k 100, or --k auto")
    if io.shard:
        raise UsageError(
            "--shard: a part cannot decide for the whole", "make the clusters of all, then --centroids works in parts"
        )
    writes = {"--save-centroids": save_centroids}
    pipeline.check_writes(io, writes)
    stage = Cluster(
        config
        | {
            "by": by or "image",
            "k": None if k == "auto" else int(k),
            "spherical": not euclidean,
            "init": init or "k-means++",
            "passes": passes,
            "seed": seed or 0,
        },
        runtime,
    )
    code = pipeline.stream(stage, io, columns=COLUMNS, records=records, writes=writes)
    if save_centroids:
        stage.save(save_centroids)
    return code
