"""Add the fields of another file's records, by id.

Group: Records

RIGHT is any source, kept on disk (some 50 bytes of memory a record); SOURCE streams, in its order. --how says what for:

  left    add the partner's fields; a field that both have with different values is an error
  inner   as left, and drop records without a partner
  update  the partner's values win
  semi    keep records that have a partner, as they are
  anti    keep records that have none, as they are

scores, emb and via are merged; --map is for SOURCE. read = kept + dropped + failed + passed counts SOURCE; what is
dropped has no-partner (inner, semi) or has-partner (anti). Two records of RIGHT with one id are an error. Streams.

Example:

    clipkit join scores.jsonl records.jsonl -o scored.jsonl
    clipkit join done.jsonl records.jsonl --how anti
    clipkit join prices.csv records.jsonl --on sku --how inner --prefix shop_
"""

from typing import Annotated, Literal

from typer import Argument, Option

from clipkit import pipeline
from clipkit.errors import ExitCode, UsageError
from clipkit.options import StreamOptions


def run(
    right: Annotated[str, Argument(metavar="RIGHT", help="Where the partners are.", show_default=False)],
    io: StreamOptions,
    how: Annotated[
        Literal["left", "inner", "update", "semi", "anti"], Option(help="What the partner is for.")
    ] = "left",
    on: Annotated[str, Option(metavar="FIELD", help="What both have; id: whatever names the record.")] = "id",
    prefix: Annotated[str, Option(metavar="TEXT", help="Before the names of fields from RIGHT.")] = "",
) -> ExitCode:
    from clipkit.stages.join import Join
    from clipkit.stages.select import RECORD_COLUMNS

    if right == "-" and (not io.sources or "-" in io.sources):
        raise UsageError("standard input cannot be both RIGHT and SOURCE", "name a file for one of them")
    if prefix and how in ("semi", "anti"):
        raise UsageError(f"--prefix: with --how {how} nothing comes from RIGHT", "leave it out")
    stage = Join({"right": right, "on": on, "how": how, "prefix": prefix}, {"root": pipeline.root(io)})
    return pipeline.stream(stage, io, columns=RECORD_COLUMNS, reads={"RIGHT": [right]})
