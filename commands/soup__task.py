"""Add or take away what models have learned.

Group: Ship

What tuning changed in the weights is a task vector: the tuned model minus BASE (Ilharco et al., 2023). The result is
BASE + scale * sum of the vectors: --add teaches a task, --negate unlearns one, --analogy A B C is C + (B - A), for "A
is to B as C is to the result". At --scale 1 one vector added gives its model; to negate, or to add several, less
usually does better: choose it by what clipkit eval says of data held out. All models are of BASE's
architecture, as `soup uniform` takes them; the new folder -o is a model, with soup.json in it. Prints a record.

Example:

    clipkit soup task ViT-B-32:laion2b_s34b_b79k --add run-cars/ --add run-signs/ --scale 0.4 -o both/
    clipkit soup task ./base/ --negate run-captions/ --scale 0.5 -o without/
    clipkit soup task ./base/ --analogy run-photo-dogs/ run-sketch-dogs/ run-photo-cats/ -o sketch-cats/
"""

from typing import Annotated

from typer import Argument, Option

from clipkit.errors import UsageError


def _three(models: tuple[str, str, str] | None) -> tuple[str, str, str] | None:
    """Typer takes what comes next for a model, be it a flag."""
    if models and (flag := next((name for name in models if name.startswith("-")), None)):
        raise UsageError(
            f"--analogy takes three models, and {models.index(flag)} came before {flag}", "--analogy A B C"
        )
    return models


def run(
    base: Annotated[str, Argument(metavar="BASE", help="What the others were tuned from.")],
    out: Annotated[str, Option("-o", "--out", metavar="DIR", help="The model: a new folder.")],
    add: Annotated[list[str] | None, Option(metavar="MODEL", help="A tuned model; may be repeated.")] = None,
    negate: Annotated[list[str] | None, Option(metavar="MODEL", help="A tuned model; may be repeated.")] = None,
    analogy: Annotated[
        tuple[str, str, str] | None,
        Option(metavar="A B C", help="The same as --add B --add C --negate A.", callback=_three),
    ] = None,
    scale: Annotated[float, Option(metavar="X", help="How much of the vectors.")] = 1.0,
    as_json: Annotated[bool, Option("--json", help="The record, also on a terminal.")] = False,
    quiet: Annotated[bool, Option("-q", "--quiet", help="No notices, no progress.")] = False,
) -> None:
    from clipkit.soups import recipes, shown

    if not (add or negate or analogy):
        raise UsageError("there is no task vector", "name tuned models: --add MODEL, --negate MODEL, --analogy A B C")
    added, negated = list(add or []), list(negate or [])
    if analogy:
        added += analogy[1:]
        negated += analogy[:1]
    shown.show(recipes.task(base, added, negated, scale, out, shown.Voice("soup task", quiet=quiet)), as_json=as_json)
