"""Write new captions for images, or rewrite those there are.

Group: Curate

What is written is added to `texts` with who wrote it, the original stays there, and `text` becomes what --use says:
the first new caption, the original or a new one by lot, or what it was. docs/recaption.md has the methods:

    tags           what zero-shot finds, before the caption; comes with clipkit, and is no language model
    coca, hf       a captioning model on this machine: CoCa of open_clip, or one of transformers
    vlm, rewrite   a model behind an OpenAI-compatible server, by a recipe (clipkit prompts show)

The server's key is taken from CLIPKIT_API_KEY or OPENAI_API_KEY. Streams.

Example:

    clipkit recaption pairs.jsonl -o tagged.jsonl
    clipkit recaption photos/ --method coca --model coca_ViT-L-14:mscoco_finetuned_laion2b_s13b_b90k
    clipkit recaption pairs.jsonl --recipe laclip --server http://localhost:8000/v1 --use mix -o laclip.jsonl
    clipkit recaption pairs.jsonl --method hf --set repo=Salesforce/blip-image-captioning-base --improve-by 0.02
"""

from typing import Annotated, Literal

from typer import Option

from clipkit import pipeline
from clipkit.errors import ExitCode
from clipkit.options import ImageOptions, ModelOptions, ServerOptions, StreamOptions


def run(
    io: StreamOptions,
    images: ImageOptions,
    model: ModelOptions,
    server: ServerOptions,
    method: Annotated[
        str | None,
        Option(metavar="NAME", help="Who writes: see `clipkit methods captioners`. Default: tags, or the recipe's."),
    ] = None,
    settings: Annotated[
        list[str] | None, Option("--set", metavar="NAME=VALUE", help="A parameter of the method; may be repeated.")
    ] = None,
    recipe: Annotated[
        str | None, Option(metavar="NAME|FILE", help="vlm, rewrite: what is asked; see `clipkit prompts show`.")
    ] = None,
    use: Annotated[
        Literal["new", "mix", "keep"],
        Option(help="What `text` becomes: the first new caption; that, another new one or the original; what it was."),
    ] = "new",
    improve_by: Annotated[
        float | None,
        Option(min=-1, max=1, metavar="X", help="Keep what is more like the image than the caption in use by X."),
    ] = None,
    seed: Annotated[int, Option(min=0, metavar="N", help="Of all that is random.")] = 0,
) -> ExitCode:
    from clipkit.methods.parameters import parse_settings
    from clipkit.stages.recaption import COLUMNS, DECIDING, Recaption, method_of, unused_model_flags

    options = server.given() | ({"recipe": recipe} if recipe else {})
    name, params = method_of(method, recipe, parse_settings(settings or ()))
    asked = {"--model": model.model, "--precision": model.precision, "--batch-size": model.batch_size}
    unused_model_flags(name, asked | {"--device": model.device, "--no-cache": model.no_cache}, improve_by)
    config = pipeline.model_config(model, images) | {
        "method": name,
        "params": params,
        "seed": seed,
        "use": use,
        "improve_by": improve_by,
        **{option: options.pop(option) for option in DECIDING if option in options},
    }
    stage = Recaption(config, pipeline.runtime(io, images, model) | {"options": options})
    return pipeline.stream(stage, io, columns=COLUMNS)
