"""Classify images by an adapter.

Group: Adapt

ADAPTER is what `clipkit train-adapter` wrote; the model is the one it was made for. Adds `pred` to each record, as
zeroshot does: the best class, its probability, the margin to the next, and the top k. Streams.

Example:

    clipkit train-adapter --method gda photos/train/ -o parts.adapter
    clipkit apply parts.adapter new/*.jpg
    clipkit scan photos/ | clipkit apply parts.adapter --blend 0.5 --top-k 3 -o out.jsonl
"""

import os
from typing import Annotated

from typer import Argument, Option

from clipkit import pipeline
from clipkit.errors import ExitCode, UsageError
from clipkit.options import Blend, Features, ImageOptions, ModelOptions, StreamOptions


def run(
    *,
    adapter: Annotated[str, Argument(metavar="ADAPTER", help="A folder that train-adapter wrote.")],
    io: StreamOptions,
    images: ImageOptions,
    model: ModelOptions,
    blend: Blend = None,
    features: Features = None,
    top_k: Annotated[int, Option(min=1, metavar="K", help="Classes listed in `topk`, best first.")] = 5,
) -> ExitCode:
    from clipkit.methods.adapters.folding import read_files
    from clipkit.stages.apply import Apply
    from clipkit.stages.zeroshot import COLUMNS

    if os.path.exists(adapter) and not os.path.isfile(read_files(adapter)[0]):
        raise UsageError(f"{adapter} is read as the adapter, and is none", "the adapter comes before the SOURCE")
    config = pipeline.model_config(model, images, features)
    config |= {"model": model.model, "adapter": adapter, "blend": blend, "top_k": top_k}
    stage = Apply(config, pipeline.runtime(io, images, model))
    return pipeline.stream(stage, io, columns=COLUMNS, reads={"ADAPTER": read_files(adapter)})
