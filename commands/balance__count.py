"""Count how many captions contain each entry, for balance.

Group: Curate

Writes the counts, and a sample of the records' entries, as JSON lines: `clipkit balance --counts FILE` decides by them,
and --plan shows what each t would keep. Parts of the input may be counted apart, with --shard. Reads everything first.

Example:

    clipkit balance count pairs.jsonl -o pairs.counts
    clipkit balance count pairs.jsonl --shard 1/8 -o part-1.counts
    clipkit balance count pairs.jsonl --metadata entries.txt | head -n 20
"""

from typing import Annotated

from typer import Option

from clipkit import pipeline
from clipkit.errors import ExitCode
from clipkit.options import Metadata, StreamOptions


def run(
    io: StreamOptions,
    metadata: Metadata = None,
    per_text: Annotated[bool, Option("--per-text", help="Count each of `texts`, for --per-text of balance.")] = False,
    per_image: Annotated[
        bool, Option("--per-image", help="Count each of `texts`, for --per-image of balance.")
    ] = False,
    per_language: Annotated[bool, Option("--per-language", help="Count each `lang` apart.")] = False,
    seed: Annotated[int, Option(metavar="N", help="With --per-image: that of balance.")] = 0,
) -> ExitCode:
    from clipkit.stages import balance

    config = balance.counting(metadata, per_text=per_text, per_image=per_image, per_language=per_language, seed=seed)
    balance.check(config)
    stage = balance.BalanceCount(config | {"part": io.shard})
    return pipeline.stream(stage, io, reads={"--metadata": list(config["metadata"].values())})
