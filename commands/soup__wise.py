"""Go part of the way from a model to what it was tuned to.

Group: Ship

The weights are (1 - alpha) BASE + alpha TUNED (WiSE-FT, Wortsman et al., 2022): often as good as TUNED where it was
tuned, and nearly as good as BASE elsewhere. --alpha 0 is BASE, 1 is TUNED, bit for bit. With --target, images of what
it was tuned for, and --others, images of what may be forgotten, a sweep measures alphas from 0 to 1, and suggests the
one with the best mean of both, the smallest of equal ones; -o writes that one, unless --alpha names another. Top-1
where images have a `label`, else the mean of R@1 both ways. Images of the split test are not chosen on. A sweep writes
a record for each alpha and one for the soup to standard output. Reads everything first.

Example:

    clipkit soup wise ViT-B-32:laion2b_s34b_b79k tuned/ --alpha 0.5 -o soup/
    clipkit soup wise ViT-B-32:base.pt tuned/ --target val.jsonl --others others.jsonl --plot curve.png -o soup/
"""

from typing import Annotated

from typer import Argument, Option

from clipkit import config, pipeline
from clipkit.errors import ExitCode, UsageError
from clipkit.options import HeldOutOptions, ImageOptions


def run(
    base: Annotated[str, Argument(metavar="BASE", help="A model as --model takes it, or a run of clipkit train.")],
    tuned: Annotated[str, Argument(metavar="TUNED", help="What it was tuned to, in the same way.")],
    held: HeldOutOptions,
    images: ImageOptions,
    alpha: Annotated[
        float | None, Option(min=0, max=1, metavar="A", help="How far to go. Default: as suggested, or 0.5.")
    ] = None,
    out: Annotated[
        str | None, Option("-o", "--out", metavar="DIR", help="Write the soup here: a new folder, for --model.")
    ] = None,
    target: Annotated[
        list[str] | None, Option(metavar="SOURCE", help="Images of what TUNED is for; may be repeated.")
    ] = None,
    others: Annotated[
        list[str] | None, Option(metavar="SOURCE", help="Images of what may be forgotten; may be repeated.")
    ] = None,
    sweep: Annotated[int | None, Option(min=1, metavar="N", help="In N steps from 0 to 1. Default: 10.")] = None,
    plot: Annotated[str | None, Option(metavar="FILE", help="Draw the curve: .png, .svg or .pdf.")] = None,
    device: Annotated[str | None, Option(metavar="NAME", help="cuda, cuda:1, mps or cpu. Default: the best.")] = None,
) -> ExitCode:
    from clipkit.evaluation import plots
    from clipkit.models.hub_folder import check_target
    from clipkit.soups import recipes, shown, wise

    if not target and (
        flag := next(
            (flag for flag, given in {"--others": others, "--sweep": sweep, "--plot": plot}.items() if given), None
        )
    ):
        raise UsageError(f"{flag} is about a sweep, and there is no --target", "add --target SOURCE")
    if not target and not out:
        raise UsageError("where is the soup to be written?", "name a folder: -o DIR; or --target SOURCE to measure")
    if [*(target or []), *(others or [])].count("-") > 1:
        raise UsageError("standard input (-) is named twice", "it can be read only once")
    if out:
        check_target(out)
    if not target:
        voice = shown.Voice("soup wise", quiet=held.quiet)
        made = recipes.wise(base, tuned, wise.USUAL if alpha is None else alpha, str(out), voice)
        shown.show(made, as_json=held.json)
        return ExitCode.OK
    from clipkit.stages.soup import WiseSoup, by_role
    from clipkit.stream.signals import stopping
    from clipkit.text.labels import parse_labels
    from clipkit.text.templates import resolve_templates

    io = held.io(target)
    if plot:
        plots.check(plot)
    pipeline.check_writes(io, {"--plot": plot})
    asked = {
        "models": [base, tuned],
        "device": config.setting("device", device).value,
        "exact_decode": images.exact_decode,
        "labels": parse_labels(held.labels).to_json() if held.labels else None,
        "templates": resolve_templates(held.template),
        "split": held.split,
        "steps": sweep or wise.STEPS,
        "alpha": alpha,
    }
    named = {"target": target, "others": others or []}
    more = {"named": named, "out": out, "plot": plot, "workers": io.workers}
    sources = {
        role: pipeline.source(held.io(some), WiseSoup.verb, confine=images.confine)
        for role, some in named.items()
        if some
    }
    with stopping(pipeline.teller(io, WiseSoup.verb), out):
        return pipeline.stream(
            WiseSoup(asked, pipeline.runtime(io, images) | more),
            io,
            records=by_role(sources),
            columns=shown.WISE_COLUMNS,
            reads={f"--{role}": some for role, some in named.items()},
            writes={"--plot": plot},
        )
