"""Keep for each class the pairs whose captions name it best.

Group: Curate

Of the captions that hold a class's name or one of its synonyms, the --per-class that are most like the class's prompts:
a small set for each class, all of one size, to train a head on (REAL-Linear, Parashar et al., 2024). Writes `label`
and `scores.retrieve`. One whose caption names several classes goes to the one it is most like that has room. --rank
random is the control. Give --synonyms here as to `concepts synonyms`: a label file has prompts, which captions are not
searched for. Reads everything first.

Example:

    clipkit concepts retrieve captions.parquet --labels @classes.txt -o retrieved.jsonl
    clipkit concepts retrieve pairs.jsonl --labels @labels.json --synonyms names.json | clipkit pack -o retrieved/
    clipkit concepts retrieve shards/ --labels @classes.txt --per-class 100 --rank image --features store/
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
    labels: Annotated[str, Option(metavar="A,B,...|@FILE", help="The classes.")],
    synonyms: Annotated[
        str | None, Option(metavar="FILE.json", help="Class -> [synonyms], instead of WordNet's.")
    ] = None,
    per_class: Annotated[int, Option(min=1, metavar="N", help="Records kept of each class, at most.")] = 500,
    rank: Annotated[
        Literal["text", "image", "random"],
        Option(help="The best by the caption's or the image's likeness to the prompts; or any."),
    ] = "text",
    template: Annotated[
        list[str] | None,
        Option(metavar="TEXT|NAME", help="A prompt with {} for the class, or simple-7 or openai-80; may be repeated."),
    ] = None,
    seed: Annotated[int | None, Option(metavar="N", help="random: of what is drawn. Default: 0.")] = None,
    mark: Annotated[bool, Option("--mark", help="Keep them all, and say in `drop` who would go and why.")] = False,
    features: Features = None,
) -> ExitCode:
    from clipkit.methods.concepts.synonyms import read_classes, read_synonyms
    from clipkit.stages.retrieve import SCORE, Retrieve, RetrieveRandom
    from clipkit.stream.table import Column
    from clipkit.text.templates import resolve_templates

    for flag, given in (("--template", template), ("--features", features), ("--model", model.model)):
        if rank == "random" and given is not None:
            raise UsageError(f"--rank random uses no {flag}", "leave it out")
    if rank != "random" and seed is not None:
        raise UsageError("--seed is for --rank random", "the best are the best by any seed")
    asked = {
        "labels": read_classes(labels).to_json(),
        "synonyms": read_synonyms(synonyms) if synonyms else None,
        "per_class": per_class,
    }
    runtime = pipeline.runtime(io, images, model)
    stage: Retrieve | RetrieveRandom
    if rank == "random":
        stage = RetrieveRandom(asked | {"seed": seed or 0}, runtime)
    else:
        config = pipeline.model_config(model, images, features) | asked
        stage = Retrieve(config | {"templates": resolve_templates(template), "by": rank}, runtime)
    columns = (
        Column("label", 20, lambda r: str(r.get("label") or "")),
        Column("score", 9, lambda r: f"{r.lookup(SCORE):.6f}" if r.lookup(SCORE) is not None else "", right=True),
        Column("id", 24, lambda r: r.id or ""),
        Column("text", 48, lambda r: str(r.get("text") or "")),
    )
    reads = {"--synonyms": [synonyms] if synonyms else []}
    return pipeline.stream(stage, io, columns=columns, mark=mark, reads=reads)
