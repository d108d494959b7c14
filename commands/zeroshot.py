"""Classify images by the labels you name.

Group: Ask a model

Adds `pred` to each record: the best label, its probability, the margin to the next, and
the top k. The labels are a list or a file: @labels.txt (one a line), @labels.json (a list,
or an object of label to descriptions). Streams.

Example:

    clipkit zeroshot samples/cat.jpg --labels cats,dogs
    clipkit zeroshot photos/ --labels @labels.txt --top-k 5 -o out.jsonl
    find photos -name '*.jpg' | clipkit zeroshot --labels cats,dogs --model ViT-B-32:laion2b_s34b_b79k
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
    labels: Annotated[str, Option(metavar="A,B,...|@FILE", help="The labels to choose from.")],
    template: Annotated[
        list[str] | None,
        Option(metavar="TEXT|NAME", help="A prompt with {} for the label, or simple-7 or openai-80; may be repeated."),
    ] = None,
    features: Features = None,
    top_k: Annotated[int, Option(min=1, metavar="K", help="Labels listed in `topk`, best first.")] = 5,
) -> ExitCode:
    from clipkit.stages.zeroshot import Zeroshot
    from clipkit.stream.table import Column
    from clipkit.text.labels import parse_labels
    from clipkit.text.templates import resolve_templates

    config = pipeline.model_config(model, images, features) | {
        "labels": parse_labels(labels).to_json(),
        "templates": resolve_templates(template),
        "top_k": top_k,
    }
    columns = (
        Column("image", 44, lambda r: r.id or ""),
        Column("label", 24, lambda r: r["pred"]["label"]),
        Column("prob", 6, lambda r: f"{r['pred']['prob']:.3f}", right=True),
        Column("margin", 6, lambda r: f"{r['pred']['margin']:.3f}", right=True),
    )
    return pipeline.stream(Zeroshot(config, pipeline.runtime(io, images, model)), io, columns=columns)
