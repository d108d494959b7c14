"""Keep the records for which conditions hold.

Group: Curate

A condition compares fields: scores.clip >= 0.28 and min(width, height) >= 200. Where a field is missing it does not
hold. Kept records come out byte for byte as they went in. docs/filter.md has the whole language and the presets.
Streams; with --top-fraction, --top-k or q() in a condition: Reads everything first.

Example:

    clipkit filter scored.jsonl --where 'scores.clip >= 0.28 and words(text) >= 3' -o kept.jsonl
    clipkit filter scored.jsonl --preset datacomp-basic --where "not text ~ '(?i)stock photo'"
    clipkit filter scored.jsonl --top-fraction 0.3 --by scores.clip --mark -o marked.jsonl
    clipkit filter --preset laion2b --show
"""

from typing import Annotated

from typer import Option

from clipkit import pipeline
from clipkit.errors import ExitCode, UsageError
from clipkit.options import StreamOptions


def run(
    io: StreamOptions,
    where: Annotated[
        list[str] | None, Option(metavar="EXPR", help="Keep what this holds for; repeated, all must hold.")
    ] = None,
    preset: Annotated[
        str | None, Option(metavar="NAME", help="A published filter. See `clipkit methods filters`.")
    ] = None,
    show: Annotated[bool, Option("--show", help="Print what the preset stands for, as flags, and do nothing.")] = False,
    top_fraction: Annotated[
        float | None, Option(metavar="F", help="Keep this part of what has --by, the highest.")
    ] = None,
    top_k: Annotated[int | None, Option(min=1, metavar="K", help="Keep so many, the highest by --by.")] = None,
    by: Annotated[str | None, Option(metavar="FIELD", help="What --top-fraction or --top-k goes by.")] = None,
    strict_datacomp: Annotated[
        bool, Option("--strict-datacomp", help="--top-fraction by DataComp's rule: one more, and ties.")
    ] = False,
    save_limits: Annotated[
        str | None, Option(metavar="FILE", help="Write what all records decided together, for --limits.")
    ] = None,
    limits: Annotated[
        str | None, Option(metavar="FILE", help="Decide by these instead: streams, and works with --shard.")
    ] = None,
    any_model: Annotated[
        bool, Option("--any-model", help="Take scores of another model than the preset is about.")
    ] = False,
    wordnet: Annotated[
        str | None, Option(metavar="DIR", help="The dictionary of entity(): WordNet 3.0's files.")
    ] = None,
    synsets: Annotated[
        str | None, Option(metavar="FILE", help="The synsets of entity(), one a line: n02084071.")
    ] = None,
    invert: Annotated[bool, Option("--invert", help="Keep what would go, and the other way round.")] = False,
    mark: Annotated[bool, Option("--mark", help="Keep all, and write into `drop` why a record would go.")] = False,
) -> ExitCode:
    from clipkit.stages import filtering
    from clipkit.stages.select import RECORD_COLUMNS

    chosen = filtering.preset(preset) if preset else None
    if show:
        if chosen is None:
            raise UsageError("--show prints a preset", "name one: --preset datacomp-basic")
        print(chosen.flags())
        return ExitCode.OK
    config = filtering.config(
        where or [],
        chosen,
        top_fraction=top_fraction,
        top_k=top_k,
        by=by,
        strict=strict_datacomp,
        any_model=any_model,
        entities=(wordnet, synsets),
        invert=invert,
    )
    if limits and save_limits:
        raise UsageError("--limits or --save-limits, not both", "the one reads what the other wrote")
    writes = {"--save-limits": save_limits}
    reads = {"--limits": [limits] if limits else [], "--synsets": [synsets] if synsets else []}
    pipeline.check_writes(io, writes)
    stage = filtering.stage(config, limits, save=bool(save_limits))
    code = pipeline.stream(stage, io, columns=RECORD_COLUMNS, mark=mark, writes=writes, reads=reads)
    if save_limits:
        filtering.save_limits(stage, save_limits)
    return code
