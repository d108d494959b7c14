"""Write records and their images for training.

Group: Curate

Copies the bytes of the images, never encoded anew, into webdataset tars or another form, in the order of the ids. Each
member gets a name of its own; the id is in its json. A shard appears when it is whole, and --resume keeps those that
are there. A record is packed as often as its field `n` says. What fails is left out, and what a verb with --mark would
have dropped. Reads everything first.

Example:

    clipkit pack scored.jsonl -o clean/
    clipkit pack 'shards/*.tar' -o small/ --max-count 1000 --max-size 500MB --rejects bad.jsonl
    clipkit pack photos/ -o table/ --to parquet
"""

from dataclasses import replace
from typing import Annotated, Literal

from typer import Option

from clipkit import pipeline
from clipkit.errors import ExitCode, UsageError
from clipkit.options import ImageOptions, StreamOptions


def run(
    io: StreamOptions,
    images: ImageOptions,
    to: Annotated[
        Literal["wds", "folder", "parquet", "csv", "coco"],
        Option(help="Tars, folders, tables that refer to the images, or COCO captions with the images."),
    ] = "wds",
    max_count: Annotated[int, Option(min=1, metavar="N", help="Records a shard, at most.")] = 10_000,
    max_size: Annotated[
        str | None, Option(metavar="SIZE", help="Bytes a shard, at most: 1GB, 500MB, 64MiB. Default: any.")
    ] = None,
) -> ExitCode:
    from clipkit.packing.layout import Layout, parse_size
    from clipkit.packing.sink import PackSink
    from clipkit.stages.pack import Pack

    if io.out in (None, "-"):
        raise UsageError("-o DIR is missing", "say where the pack goes: -o clean/")
    if str(io.out).endswith((".tar", ".parquet", ".csv", ".jsonl")):
        raise UsageError(f"-o {io.out}: a pack is a folder, with shards in it", "say for example: -o clean/")
    if io.on_error == "keep":
        raise UsageError("--on-error keep: a pack has no place for what failed", "--rejects FILE takes it")
    layout = Layout(to, max_count, parse_size(max_size) if max_size else None)
    stage = Pack(layout.config(), pipeline.runtime(io, images))
    resume = io.resume or io.retry_failed
    sink = PackSink(str(io.out), layout, stage.images, resume=resume, restart=io.restart)
    io = replace(io, on_error=io.on_error or "skip")
    return pipeline.stream(stage, io, sink=sink, order=sink.key)
