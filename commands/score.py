"""Measure images and captions: numbers, no decisions.

Group: Curate

Adds `scores`; what they mean is in docs/scores.md, and `clipkit methods scorers` lists them:

    with a model     clip, clip-flip, tmars, retrieval-rank, prompts, head
    of the image     quality, aspect, size, hash
    of the caption   lang, caption

Several share one opening, one decode and one encoding of each image, and no number depends on which others are asked
for. A score of another model is never written over. Streams; with retrieval-rank it reads everything first.

Example:

    clipkit score photos.jsonl --by clip,lang,quality --model ViT-B-32:laion2b_s34b_b79k
    clipkit score photos/ --concept 'a watermark|a clean photo' --concept 'food=food|something else'
    clipkit scan 'shards/*.tar' | clipkit score --by clip --as clip_lite | clipkit head
"""

from typing import Annotated, Any

from typer import Option

from clipkit import pipeline
from clipkit.errors import ExitCode, UsageError
from clipkit.options import Features, ImageOptions, ModelOptions, StreamOptions

# The flags that only some scorers take: the option's name, the flag, whose it is.
OWN = (
    ("concepts", "--concept", "prompts"),
    ("head", "--head", "head"),
    ("rank_batch", "--rank-batch", "retrieval-rank"),
)


def run(
    io: StreamOptions,
    images: ImageOptions,
    model: ModelOptions,
    by: Annotated[
        list[str] | None,
        Option(metavar="NAME,...", help="What to measure. Without it: what --concept and --head are for."),
    ] = None,
    as_name: Annotated[
        str | None, Option("--as", metavar="NAME", help="Write the score under this name, where there is only one.")
    ] = None,
    concept: Annotated[
        list[str] | None,
        Option(metavar="A|B|...", help="prompts: the probability of A against the others; NAME=A|B names it."),
    ] = None,
    head: Annotated[str | None, Option(metavar="FILE", help="head: a linear head, .safetensors.")] = None,
    rank_batch: Annotated[
        int | None, Option(min=2, metavar="N", help="retrieval-rank: captions to rank among. Default: 256.")
    ] = None,
    features: Features = None,
) -> ExitCode:
    from clipkit.stages.score import columns, score

    options: dict[str, Any] = {"concepts": concept or [], "head": head, "rank_batch": rank_batch}
    names = [name.strip() for word in by or () for name in word.split(",") if name.strip()]
    for option, flag, owner in OWN:
        if not options[option]:
            continue
        if by is None and option != "rank_batch":
            names.append(owner)
        elif owner not in names:
            raise UsageError(f"{flag} is for the scorer {owner}, which is not named", f"add it: --by {owner}")
    config = pipeline.model_config(model, images, features) | {"by": names, "rename": as_name, "options": options}
    stage = score(config, pipeline.runtime(io, images, model))
    return pipeline.stream(stage, io, columns=columns(stage.outputs), reads={"--head": [head] if head else []})
