"""Train a CLIP model on pairs: from scratch, or further.

Group: Adapt

A bare architecture (tiny-ViT-64, ViT-B-32) begins with random weights, any other model of open_clip with its own. The
folder -o gets the model (`model/`, for --model and for open_clip), checkpoints, metrics.jsonl and run.json.
--resume goes on from the last checkpoint, with the losses that a run without a stop would have had. Records of the
split test are left out, those of val measured on. Where all sources are tar shards they are read in order, as
webdataset does, and what they have of val is left out, too: name it with --eval. With torchrun it trains on several
GPUs or machines. Ctrl-C ends the step first. Reads everything first.

Example:

    clipkit train pairs.jsonl --model tiny-ViT-64 --epochs 20 -o run/
    clipkit zeroshot photos/ --labels cat,dog --model ./run/model/
    clipkit train pairs.jsonl --model ViT-B-32:laion2b_s34b_b79k --lora 8 --eval val.jsonl -o tuned/
    clipkit train 'shards/*.tar' --model tiny-ViT-64 --texts original=1,coca=1 --batch-size 4096 --chunk 256 -o run/
"""

from typing import Annotated, Any

from typer import Option

from clipkit import config, pipeline
from clipkit.errors import ExitCode, UsageError
from clipkit.options import ImageOptions, StreamOptions
from clipkit.training_options import KeepingOptions, LearningOptions, PairOptions, TrainedOptions


def run(
    io: StreamOptions,
    images: ImageOptions,
    learning: LearningOptions,
    trained: TrainedOptions,
    pairs: PairOptions,
    keeping: KeepingOptions,
    model: Annotated[str, Option(metavar="NAME", help="An architecture, or a model to go on from.")],
    device: Annotated[str | None, Option(metavar="NAME", help="cuda, cuda:1, mps or cpu. Default: the best.")] = None,
) -> ExitCode:
    from clipkit.methods.parameters import parse_settings
    from clipkit.stages.train import Train
    from clipkit.stream.sink import NoSink, StdoutSink
    from clipkit.training.shards import shard_paths, shard_records

    if not io.out or io.out == "-":
        raise UsageError("where is the run to be written?", "name a folder: -o DIR")
    if io.retry_failed:
        raise UsageError("--retry-failed: what cannot be read is tried again in every epoch", "leave it out")
    settings = {**learning.given(), **trained.given(), **pairs.given()}
    settings["loss_settings"] = parse_settings(learning.loss_settings or [])
    length: dict[str, Any] = {name: settings.pop(name) for name in ("epochs", "samples") if name in settings}
    asked = {"model": model, "device": config.setting("device", device).value, "settings": settings, **length}
    kept = keeping.given() | {"run": io.out, "resume": io.resume, "restart": io.restart}
    whole = io.limit is None and not io.shard and not io.map  # nothing is asked of single records
    shards = shard_paths(io.sources) if whole else None
    stage = Train(asked | {"shards": bool(shards)}, pipeline.runtime(io, images) | kept)
    measured = {"val": keeping.eval or []}
    first = shard_records(shards, pipeline.root(io)) if shards else None
    records = pipeline.sources_by_split(io, stage.verb, measured, confine=images.confine, first=first)
    reads = {"SOURCE": io.sources, "--eval": measured["val"]}
    io, leads = pipeline.one_of_several(io)
    stage.tell = pipeline.teller(io, stage.verb)
    return pipeline.stream(stage, io, records=records, reads=reads, sink=StdoutSink() if leads else NoSink())
