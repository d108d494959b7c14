"""Make captions wrong on purpose, by a known share.

Group: Curate

For ablations, and to measure a filter: `corrupted` says what was done, and holds the true caption. Drawn by hash of the
id: the same on every machine and in any order, and a larger share of one seed contains the smaller. --shuffle lets that
share of the records exchange their captions (texts included), so that no picture keeps its own: Reads everything first.
--drop-words and --swap-words work on that share of the words of every caption, and stream. `texts` is treated as the
caption is: the true one is in `corrupted` alone. Records that were corrupted before stay as they are.

Example:

    clipkit corrupt pairs.jsonl --shuffle 0.3 -o noisy.jsonl
    clipkit corrupt pairs.jsonl --shuffle 0.2 --seed 1 | clipkit corrupt --drop-words 0.5
    clipkit score noisy.jsonl --by clip | clipkit filter --top-fraction 0.7 --by scores.clip -o kept.jsonl
"""

from typing import Annotated

from typer import Option

from clipkit import pipeline
from clipkit.errors import ExitCode, UsageError
from clipkit.options import StreamOptions


def run(
    io: StreamOptions,
    shuffle: Annotated[
        float | None, Option(min=0, max=1, metavar="SHARE", help="This share of the captions goes to other records.")
    ] = None,
    drop_words: Annotated[
        float | None, Option(min=0, max=1, metavar="SHARE", help="This share of each caption's words goes.")
    ] = None,
    swap_words: Annotated[
        float | None, Option(min=0, max=1, metavar="SHARE", help="This share of its words change places.")
    ] = None,
    seed: Annotated[int, Option(metavar="N", help="Another number, others are drawn.")] = 0,
) -> ExitCode:
    from clipkit.stages.corrupt import COLUMNS, CorruptShuffle, CorruptWords

    asked = {"shuffle": shuffle, "drop-words": drop_words, "swap-words": swap_words}
    given = [(by, share) for by, share in asked.items() if share is not None]
    if len(given) != 1:
        hint = "two, one after the other: clipkit corrupt --shuffle 0.2 | clipkit corrupt --drop-words 0.5"
        raise UsageError("how? say one of --shuffle, --drop-words and --swap-words", hint if given else None)
    by, share = given[0]
    if by == "shuffle":
        return pipeline.stream(CorruptShuffle({"share": share, "seed": seed}), io, columns=COLUMNS)
    return pipeline.stream(CorruptWords({"by": by, "share": share, "seed": seed}), io, columns=COLUMNS)
