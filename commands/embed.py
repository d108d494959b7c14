"""Turn images and captions into features.

Group: Ask a model

With -o DIR it makes a feature store, which clip-retrieval and autofaiss can read too: one part for each input file,
float16, joined by id. With -o FILE.jsonl or without -o, records get the field `emb`: base64 of float16. A record may
have an image, a text, or both. Streams.

Example:

    clipkit embed photos/ -o features/
    clipkit embed 'shards/*.tar' -o features/ --backbone --resume --model ViT-B-32:laion2b_s34b_b79k
    clipkit embed samples/cat.jpg | jq -r .emb.image | base64 -d | wc -c
"""

from typing import Annotated, Literal

from typer import Option

from clipkit import pipeline
from clipkit.errors import ExitCode, UsageError
from clipkit.options import ImageOptions, ModelOptions, StreamOptions

RECORDS = (".jsonl", ".jsonl.gz", ".jsonl.zst")


def run(
    io: StreamOptions,
    images: ImageOptions,
    model: ModelOptions,
    emb: Annotated[
        Literal["store", "inline"] | None,
        Option(help="Where features go: a folder, or the records. Default: a folder with -o DIR, else the records."),
    ] = None,
    only: Annotated[Literal["image", "text"] | None, Option(help="Features of images alone, or of texts.")] = None,
    backbone: Annotated[
        bool, Option("--backbone", help="Also what the image model has before the shared space.")
    ] = False,
) -> ExitCode:
    from clipkit.features.writer import StoreSink
    from clipkit.stages.embed import Embed
    from clipkit.stream.table import Column

    named = io.out not in (None, "-")
    where = emb or ("store" if named and not str(io.out).endswith(RECORDS) else "inline")
    if where == "store" and not named:
        raise UsageError("--emb store needs -o DIR", "add -o DIR, or leave --emb out to get records")
    if backbone and only == "text":
        raise UsageError("--backbone is about images, and --only text leaves them out")
    outputs = {"image": only != "text", "text": only != "image", "backbone": backbone}
    config = pipeline.model_config(model, images) | outputs | {"store": where == "store"}
    stage = Embed(config, pipeline.runtime(io, images, model))
    columns = (Column("id", 60, lambda r: r.id or ""), Column("features", 20, lambda r: ", ".join(r["emb"])))
    sink = StoreSink(str(io.out), stage.layout) if where == "store" else None
    return pipeline.stream(stage, io, columns=columns, sink=sink)
