"""Average the models that make each other better.

Group: Ship

Measures each model on held-out images, then adds them to a soup, the best first: one that makes the mean of weights
strictly better stays, any other is left out (model soups, Wortsman et al., 2022). So the soup is never below the best
single model on these images; measure it on others. Top-1 where images have a `label`, as eval classification has it,
else the mean of R@1 both ways, as eval retrieval has it. Images of the split test are not chosen on. A MODEL is what
--model takes, where open_clip runs it, or the folder of a run of clipkit train. Standard output gets a record for each
model, in the order tried, and one for the soup. Reads everything first.

Example:

    clipkit soup greedy run-1/ run-2/ run-3/ --val val.jsonl -o soup/
    clipkit soup greedy ViT-B-32:a.pt ViT-B-32:b.pt --val photos/val/ --labels cats,dogs --template simple-7 -o soup/
    clipkit eval classification test.jsonl --model ./soup/
"""

from typing import Annotated

from typer import Argument, Option

from clipkit import config, pipeline
from clipkit.errors import ExitCode
from clipkit.options import HeldOutOptions, ImageOptions


def run(
    models: Annotated[list[str], Argument(metavar="MODEL...", help="Runs, or models as --model takes them.")],
    held: HeldOutOptions,
    images: ImageOptions,
    val: Annotated[list[str], Option(metavar="SOURCE", help="Images to choose on; may be repeated.")],
    out: Annotated[str, Option("-o", "--out", metavar="DIR", help="The soup: a new folder, for --model.")],
    device: Annotated[str | None, Option(metavar="NAME", help="cuda, cuda:1, mps or cpu. Default: the best.")] = None,
) -> ExitCode:
    from clipkit.models.hub_folder import check_target
    from clipkit.soups.shown import GREEDY_COLUMNS
    from clipkit.stages.soup import GreedySoup
    from clipkit.stream.signals import stopping
    from clipkit.text.labels import parse_labels
    from clipkit.text.templates import resolve_templates

    check_target(out)
    asked = {
        "models": models,
        "device": config.setting("device", device).value,
        "exact_decode": images.exact_decode,
        "labels": parse_labels(held.labels).to_json() if held.labels else None,
        "templates": resolve_templates(held.template),
        "split": held.split,
    }
    io = held.io(val)
    more = {"named": {"val": val}, "out": out, "workers": io.workers}
    with stopping(pipeline.teller(io, GreedySoup.verb), out):
        return pipeline.stream(GreedySoup(asked, pipeline.runtime(io, images) | more), io, columns=GREEDY_COLUMNS)
