"""Find the images that a text or an image is about.

Group: Ask a model

The query is a text, or with --image a picture; --plus and --minus add to it and take away. Their terms are texts, or
@FILE for an image, and may carry a weight: 2:bus. Exact; equal scores by id. A table on a terminal, else records in the
order of their `scores.search`. With --features and no SOURCE the store itself is searched. Reads everything first.

Example:

    clipkit search 'a red bus' photos/
    clipkit search 'a beach' photos/ --minus people --plus 0.5:sunset --top-k 20 --min 0.1
    clipkit search --image samples/cat.jpg --features store/ | jq -r .image
"""

from dataclasses import replace
from typing import Annotated

from typer import Argument, Option

from clipkit import pipeline
from clipkit.errors import ExitCode, UsageError
from clipkit.options import Features, ImageOptions, ModelOptions, StreamOptions


def run(
    *,
    query: Annotated[
        str | None, Argument(metavar="[QUERY]", help="What is looked for. Left out with --image.", show_default=False)
    ] = None,
    io: StreamOptions,
    images: ImageOptions,
    model: ModelOptions,
    image: Annotated[
        list[str] | None, Option(metavar="FILE", help="Look for what is like this image; may be repeated.")
    ] = None,
    plus: Annotated[list[str] | None, Option(metavar="TEXT|@FILE", help="More of this; may be repeated.")] = None,
    minus: Annotated[list[str] | None, Option(metavar="TEXT|@FILE", help="Less of this; may be repeated.")] = None,
    features: Features = None,
    top_k: Annotated[int, Option(min=1, metavar="K", help="How many are kept, at most.")] = 10,
    least: Annotated[float | None, Option("--min", metavar="SCORE", help="Keep only what has this score.")] = None,
) -> ExitCode:
    from clipkit.features.search import terms
    from clipkit.stages.search import SCORE, Search, SearchStore
    from clipkit.stream.table import Column

    sources = [*([query] if image and query else []), *io.sources]
    if not image and not query:
        raise UsageError("what is looked for?", "for example: clipkit search 'a red bus' photos/")
    if not image and not sources and not features and "/" in str(query):
        raise UsageError(
            f"{query!r} is read as what is looked for", "the query comes before the SOURCE, which may be -"
        )
    wanted = [f"@{path}" for path in image] if image else [str(query)]
    io = replace(io, sources=sources, on_error=io.on_error or "skip")
    config = pipeline.model_config(model, images, features) | {
        "terms": terms([*wanted, *(plus or ())], minus or ()),
        "top_k": top_k,
        "min": least,
    }
    runtime = pipeline.runtime(io, images, model)
    columns = (
        Column("score", 9, lambda r: f"{r.lookup(SCORE):.6f}", right=True),
        Column("image", 80, lambda r: str(r.get("image") or r.id or "")),
    )
    if not pipeline.reads_store(io, features):
        return pipeline.stream(Search(config, runtime), io, columns=columns)
    store = SearchStore(config, runtime)
    return pipeline.stream(store, io, columns=columns, records=store.hits())
