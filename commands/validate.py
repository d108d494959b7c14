"""Check records against the contract.

Group: Records

Prints each problem as FILE:LINE: what, and a count of each kind, on standard error. Exits 0 if there is none, else 1.
Fields that clipkit doesn't know are always right. docs/records.md has the contract. Streams.

Example:

    clipkit validate records.jsonl
    clipkit cat photos/ | clipkit validate
"""

import sys
from typing import Annotated

from typer import Option

from clipkit import pipeline
from clipkit.errors import ExitCode
from clipkit.options import InputOptions


def run(
    io: InputOptions,
    show: Annotated[int, Option(min=0, metavar="N", help="Problems printed; all are counted.")] = 100,
) -> ExitCode:
    from clipkit.stream.validate import Validation
    from clipkit.terminal import printable

    validation = Validation()
    for number, problem in enumerate(validation.problems(pipeline.source(io, "validate"))):
        if number < show and not io.quiet:
            print(printable(f"{problem.where}: {problem.message}"), file=sys.stderr)
    if not io.quiet:
        print(f"clipkit validate: {validation.summary()}", file=sys.stderr)
    return ExitCode.FAILED if validation.counts else ExitCode.OK
