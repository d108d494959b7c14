"""Drop records that overlap a benchmark.

Group: Curate

A record goes if any of the methods finds an item of a benchmark in it: bytes and pixels (equal), phash and dhash (at
most --hamming bits apart), semantic (a cosine over 1 - --eps). What stays is written byte for byte. A benchmark is a
source of records, a folder of images, a feature store, or a .txt of digests (64 hex digits: sha256; 16: phash). The
report says what overlapped with which. Streams; the benchmarks are read first.

Example:

    clipkit decontaminate pool.jsonl --against test/ --against coco=coco-val.jsonl -o clean.jsonl
    clipkit decontaminate shards/*.tar --against imagenet-sha256.txt --by bytes --shard 3/8 > clean-3.jsonl
    clipkit decontaminate pool.jsonl --against test/ --mark --overlaps overlaps.jsonl --report counts.json
"""

from typing import Annotated

from typer import Option

from clipkit import pipeline
from clipkit.errors import ExitCode
from clipkit.options import Features, ImageOptions, ModelOptions, StreamOptions


def run(
    io: StreamOptions,
    images: ImageOptions,
    model: ModelOptions,
    against: Annotated[
        list[str],
        Option(metavar="[NAME=]EVAL", help="A benchmark: records, images, a feature store, digests; may be repeated."),
    ],
    by: Annotated[
        str, Option(metavar="NAME,...", help="bytes, pixels, phash, dhash, semantic.")
    ] = "bytes,phash,semantic",
    hamming: Annotated[
        int | None,
        Option(min=0, max=16, metavar="BITS", help="phash, dhash: at most so many of 64 differ. Default: 6."),
    ] = None,
    eps: Annotated[
        float | None,
        Option(metavar="E", help="semantic: a cosine over 1 - E overlaps. Default: 0.1, which suits lite."),
    ] = None,
    mark: Annotated[bool, Option("--mark", help="Keep them all, and say in `drop` what a record overlaps.")] = False,
    overlaps: Annotated[
        str | None, Option(metavar="FILE", help="Write all pairs of a record and what it overlaps here.")
    ] = None,
    features: Features = None,
) -> ExitCode:
    from clipkit.methods.contamination.benchmarks import parse
    from clipkit.stages.decontaminate import Decontaminate, overlaps_file
    from clipkit.stages.select import RECORD_COLUMNS, parse_names

    config = pipeline.model_config(model, images, features) | {
        "by": parse_names([by]),
        "against": against,
        "hamming": hamming,
        "eps": eps,
    }
    runtime = pipeline.runtime(io, images, model) | {"on_error": io.on_error, "workers": io.workers}
    stage = Decontaminate(config, runtime)
    records = pipeline.store_records(str(features)) if pipeline.reads_store(io, features) else None
    writes, reads = {"--overlaps": overlaps}, {"--against": list(parse(against).values())}
    pipeline.check_writes(io, writes)
    with overlaps_file(overlaps) as stage.found:
        return pipeline.stream(
            stage, io, columns=RECORD_COLUMNS, mark=mark, records=records, writes=writes, reads=reads
        )
