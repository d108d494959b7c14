"""Turn any source into records.

Group: Records

A record an image: its path, an id that doesn't depend on how the path was typed, and the caption and fields that lie
beside it. --hash and --size open each image; without them none is opened. Streams.

Example:

    clipkit scan photos/ --label-from folder --size -o photos.jsonl
    clipkit scan 'shards/{00..41}.tar' --hash | clipkit head -n 3
"""

from typing import Annotated

from typer import Option

from clipkit import pipeline
from clipkit.errors import ExitCode
from clipkit.options import ImageOptions, StreamOptions


def run(
    io: StreamOptions,
    images: ImageOptions,
    hash: Annotated[bool, Option("--hash", help="Add sha256 of the image's bytes.")] = False,
    size: Annotated[bool, Option("--size", help="Add width and height, in pixels, as the image is seen.")] = False,
) -> ExitCode:
    from clipkit.stages.scan import Scan, ScanPlain
    from clipkit.stages.select import RECORD_COLUMNS

    if not hash and not size:
        return pipeline.stream(ScanPlain({}), io, columns=RECORD_COLUMNS)
    stage = Scan({"hash": hash, "size": size}, pipeline.runtime(io, images))
    return pipeline.stream(stage, io, columns=RECORD_COLUMNS)
