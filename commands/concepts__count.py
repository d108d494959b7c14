"""Count how often concepts occur in captions and images.

Group: Curate

A caption has a concept if it names it: whole words, in any case, in the plural too (Udandarao et al., 2024). An image
has it if the model gives it a probability of at least --threshold, among all concepts and 300 other nouns. Prints a
record a concept with `text`, `image` and `both` (counts of records), and last one about any of them, from which the
share of misaligned records follows. Parts done with --shard add up in `concepts tail` and `curve`. Reads everything
first.

Example:

    clipkit concepts count captions.parquet --concepts cat,dog,'ice cream'
    clipkit concepts count captions.parquet --concepts @classes.txt -o counts.jsonl
    clipkit concepts count pairs.jsonl --concepts @classes.txt --by text,image --shard 1/8 -o counts-1.jsonl
"""

from typing import Annotated

from typer import Option

from clipkit import pipeline
from clipkit.errors import ExitCode, UsageError
from clipkit.options import Features, ImageOptions, ModelOptions, StreamOptions


def parse_by(text: str) -> frozenset[str]:
    """`text,image` to {"text", "image"}."""
    sides = frozenset(side.strip() for side in text.split(","))
    if not sides <= {"text", "image"}:
        raise UsageError(f"--by takes text, image or text,image, not {text!r}")
    return sides


def run(
    io: StreamOptions,
    images: ImageOptions,
    model: ModelOptions,
    concepts: Annotated[
        str, Option(metavar="A,B,...|@FILE", help="A .json of concept -> [spellings] counts any of them.")
    ],
    by: Annotated[str, Option(metavar="SIDES", help="Where to look: text, image, or text,image.")] = "text",
    threshold: Annotated[
        float | None, Option(metavar="P", help="An image has a concept from this probability on. Default: 0.2.")
    ] = None,
    template: Annotated[
        list[str] | None,
        Option(metavar="TEXT|NAME", help="A prompt with {} for a concept, or simple-7 or openai-80; may be repeated."),
    ] = None,
    features: Features = None,
) -> ExitCode:
    from clipkit.stages.concepts import COUNT_COLUMNS, CountConcepts
    from clipkit.text.concepts import read_concepts

    listed, sides = read_concepts(concepts), parse_by(by)
    config = {"names": list(listed.names), "groups": [list(group) for group in listed.groups]}
    config |= {"part": "{}/{}".format(*io.shard)} if io.shard else {}
    if "image" not in sides:
        image_flags = {
            "--threshold": threshold,
            "--template": template,
            "--features": features,
            "--model": model.model,
        }
        for flag, given in image_flags.items():
            if given is not None:
                raise UsageError(f"{flag} is about images, which are not counted", "add --by text,image")
        return pipeline.stream(CountConcepts(config), io, columns=COUNT_COLUMNS)

    from clipkit.stages.tags import CountTags
    from clipkit.text.templates import resolve_templates

    config |= pipeline.model_config(model, images, features)
    config |= {"text": "text" in sides, "templates": resolve_templates(template)}
    if threshold is not None:
        config["threshold"] = threshold
    stage = CountTags(config, pipeline.runtime(io, images, model))
    records = pipeline.store_records(str(features)) if pipeline.reads_store(io, features) else None
    return pipeline.stream(stage, io, columns=COUNT_COLUMNS, records=records)
