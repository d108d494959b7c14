"""Write a model in a form that ships, and prove it true.

Group: Ship

The default is ONNX: image.onnx, text.onnx, tokenizer and preprocessing in a folder that every verb takes as --model,
without torch, and that plain onnxruntime runs with the script written beside. Each export ends with a report on real
pictures and texts (parity.json, and on standard output): below --min-cosine or --min-agreement it exits 1 and leaves
nothing. `clipkit methods exporters` has the targets.

Example:

    clipkit export --model ViT-B-32:laion2b_s34b_b79k -o onnx/
    clipkit export --model ViT-B-32:laion2b_s34b_b79k --int8 --samples photos/ -o small/
    clipkit export --to head --labels cats,dogs -o cats/
    clipkit zeroshot photos/ --labels cats,dogs --model ./onnx/
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

from typer import Option

from clipkit import config, pipeline
from clipkit.errors import UsageError
from clipkit.export_options import ExportOptions, ParityOptions
from clipkit.options import InputOptions

if TYPE_CHECKING:
    from clipkit.exporting.samples import Samples


def run(
    made: ExportOptions,
    held: ParityOptions,
    out: Annotated[str, Option("-o", "--out", metavar="DIR", help="A new folder.")],
    as_json: Annotated[bool, Option("--json", help="The report, also on a terminal.")] = False,
    quiet: Annotated[bool, Option("-q", "--quiet", help="No notices, no progress.")] = False,
) -> None:
    from clipkit.exporting import running, shown
    from clipkit.exporting.base import TOWERS, Wish
    from clipkit.exporting.samples import carried
    from clipkit.text.templates import resolve_templates

    for flag, given in (("--dynamic", made.dynamic), ("--calibrate", made.calibrate)):
        if given and not made.int8:
            raise UsageError(f"{flag} says how --int8 is made", f"add it: --int8 {flag}")
    if made.dynamic and made.calibrate:
        raise UsageError("--dynamic and --calibrate are two ways to one thing", "leave one of them out")
    if made.template and not made.labels:
        raise UsageError("--template is about --labels, of a head", "for example: --to head --labels cats,dogs")
    wish = Wish(
        towers=(made.tower,) if made.tower else TOWERS,
        int8="dynamic" if made.dynamic else "static" if made.calibrate else "weights" if made.int8 else None,
        opset=made.opset,
        external_data=made.external_data,
        embed_preprocessing=made.embed_preprocessing,
        adapter=made.adapter,
        labels=made.labels,
        templates=tuple(resolve_templates(made.template)),
    )
    note = pipeline.teller(InputOptions(quiet=quiet), "export")
    asked = running.Export(
        model=config.setting("model", made.model).value if made.model or not made.adapter else None,
        target=made.to,
        wish=wish,
        out=out,
        samples=reading(held.samples, quiet) if held.samples else carried,
        calibration=reading(made.calibrate, quiet) if made.calibrate else None,
        min_cosine=held.min_cosine,
        min_agreement=held.min_agreement,
        tell=note if sys.stderr is not None and sys.stderr.isatty() else lambda line: None,
        notify=note,
    )
    try:
        report = running.export(asked)
    except running.NotTrue as error:
        shown.tables(error.report, sys.stderr)
        raise
    shown.write(report, out, as_json=as_json)


def reading(sources: list[str], quiet: bool) -> Callable[[], Samples]:
    """What reads the samples of `--samples` or `--calibrate`; a name without folders goes into the report."""

    def read() -> Samples:
        from clipkit.exporting.samples import named
        from clipkit.images.opener import Opener

        io = InputOptions(sources=sources, quiet=quiet)
        name = ", ".join(os.path.basename(os.path.normpath(source)) for source in sources)
        opener = Opener.of({"root": pipeline.root(io)})
        return named(pipeline.source(io, "export"), opener, name, pipeline.teller(io, "export"))

    return read
