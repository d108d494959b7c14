"""Train a CLIP model on pairs: from scratch, or further.

Group: Adapt

A bare architecture (`tiny-ViT-64`, `ViT-B-32`) begins with random weights, any other model with its own.
Reads everything first.

Example:

    clipkit train pairs.jsonl --model tiny-ViT-64 --steps 2000 -o run/
    clipkit zeroshot photos/ --labels cat,dog --model ./run/model/
"""

from typing import Annotated

from typer import Option

from clipkit import pipeline
from clipkit.errors import ExitCode, UsageError
from clipkit.options import ImageOptions, StreamOptions


def run(
    io: StreamOptions,
    images: ImageOptions,
    model: Annotated[str, Option(metavar="NAME", help="An architecture, or a model to go on from.")],
    steps: Annotated[int, Option(min=1, metavar="N", help="Steps of the optimizer.")] = 1000,
    batch_size: Annotated[int, Option(min=2, metavar="N", help="Pairs of a step, over all processes.")] = 256,
    lr: Annotated[float, Option(min=0, metavar="X", help="The highest learning rate.")] = 5e-4,
) -> ExitCode:
    from clipkit.stages.train import Train
    from clipkit.stream.sink import StdoutSink

    if not io.out or io.out == "-":
        raise UsageError("where is the run to be written?", "name a folder: -o DIR")
    config = {"model": model, "settings": {"steps": steps, "batch_size": batch_size, "lr": lr}}
    stage = Train(config, pipeline.runtime(io, images) | {"run": io.out})
    return pipeline.stream(stage, io, sink=StdoutSink())
