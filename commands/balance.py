"""Keep fewer captions of what is common, all of what is rare.

Group: Curate

MetaCLIP's balancing. An entry of --metadata (default: WordNet's nouns) that N captions contain is drawn with the
probability t / max(N, t), and a record stays if one of its entries is. Captions with no entry go. What stays is written
byte for byte. Reads everything first; with --counts: Streams, and works with --shard.

Example:

    clipkit balance pairs.jsonl --plan
    clipkit balance pairs.jsonl --keep-fraction 0.3 -o kept.jsonl
    clipkit balance count pairs.jsonl -o pairs.counts
    clipkit balance pairs.jsonl --counts pairs.counts --t 200 --shard 1/8 -o kept-1.jsonl
"""

from typing import Annotated

from typer import Option

from clipkit import pipeline
from clipkit.errors import ExitCode, UsageError
from clipkit.options import Metadata, StreamOptions


def run(
    io: StreamOptions,
    metadata: Metadata = None,
    t: Annotated[float | None, Option("--t", metavar="T", help="Entries in more captions than this are head.")] = None,
    tail_mass: Annotated[
        float | None, Option(metavar="P", help="Instead: the t below which this part of all matches is. Theirs: 0.06.")
    ] = None,
    keep_fraction: Annotated[
        float | None, Option(metavar="F", help="Instead: the t that keeps this part of the records, on average.")
    ] = None,
    per_text: Annotated[
        bool, Option("--per-text", help="Judge each of `texts`; those that pass stay, and so does their record.")
    ] = False,
    per_image: Annotated[
        bool, Option("--per-image", help="Judge one of `texts`, drawn at random: the caption of what stays.")
    ] = False,
    per_language: Annotated[
        bool, Option("--per-language", help="A t for each `lang`, of the tail mass that English has with --t.")
    ] = False,
    counts: Annotated[
        list[str] | None,
        Option(metavar="FILE", help="Decide by what `clipkit balance count` counted; may be repeated for parts."),
    ] = None,
    save_counts: Annotated[str | None, Option(metavar="FILE", help="Write the counts, for --counts.")] = None,
    seed: Annotated[int, Option(metavar="N", help="Another seed draws others.")] = 0,
    mark: Annotated[bool, Option("--mark", help="Keep all, and write into `drop` why a record would go.")] = False,
    show: Annotated[
        bool, Option("--plan", help="Print t against expected size, head and tail, and keep nothing.")
    ] = False,
) -> ExitCode:
    from clipkit.stages import balance
    from clipkit.stages.select import RECORD_COLUMNS

    config = balance.counting(metadata, per_text=per_text, per_image=per_image, per_language=per_language, seed=seed)
    config |= {"t": t, "tail_mass": tail_mass, "keep_fraction": keep_fraction, "mark": mark}
    balance.check(config, needs_rule=not show)
    if save_counts and (counts or show):
        raise UsageError(
            f"--save-counts goes without {'--plan' if show else '--counts'}", "clipkit balance count counts"
        )
    if show and mark:
        raise UsageError("--plan keeps nothing", "leave --mark out")
    if show and counts and (io.sources or io.shard or io.limit is not None):
        raise UsageError("--plan with --counts is about the counts alone", "leave out the SOURCE, --shard and --limit")
    if io.shard and not counts:
        hint = "count it in parts with clipkit balance count, then balance works in parts with --counts"
        raise UsageError("--shard: a part cannot decide for the whole", hint)
    reads = {"--counts": counts or [], "--metadata": list(config["metadata"].values())}
    if show:
        planning = balance.BalancePlan({**config, "counts": counts or []})
        return pipeline.stream(planning, io, columns=balance.PLAN_COLUMNS, records=[] if counts else None, reads=reads)
    if counts:
        deciding = balance.Balance({**config, "counts": counts})
        return pipeline.stream(deciding, io, columns=RECORD_COLUMNS, mark=mark, reads=reads)
    writes = {"--save-counts": save_counts}
    pipeline.check_writes(io, writes)
    stage = balance.BalanceWhole(config)
    code = pipeline.stream(stage, io, columns=RECORD_COLUMNS, mark=mark, writes=writes, reads=reads)
    if save_counts:
        balance.save_counts(stage, save_counts)
    return code
