"""Average the weights of models into one.

Group: Ship

Models tuned from one start, in different ways, often have a mean that is better than each of them (the uniform soup of
Wortsman et al., 2022); without a common start it is none at all. A MODEL is what --model takes, where open_clip runs
it, or the folder of a run of clipkit train. The new folder -o is a model, for --model and for open_clip, and soup.json
in it says what was mixed. Memory is that of two models, however many are mixed. Prints a record.

Example:

    clipkit soup uniform run-1/ run-2/ run-3/ -o soup/
    clipkit soup uniform ViT-B-32:a.safetensors ViT-B-32:b.pt -o soup/
    clipkit eval classification test/ --model ./soup/ --model ./run-1/model/
"""

from typing import Annotated

from typer import Argument, Option


def run(
    models: Annotated[list[str], Argument(metavar="MODEL...", help="Models, or folders of runs.")],
    out: Annotated[str, Option("-o", "--out", metavar="DIR", help="The model: a new folder.")],
    as_json: Annotated[bool, Option("--json", help="The record, also on a terminal.")] = False,
    quiet: Annotated[bool, Option("-q", "--quiet", help="No notices, no progress.")] = False,
) -> None:
    from clipkit.soups import recipes, shown

    shown.show(recipes.uniform(models, out, shown.Voice("soup uniform", quiet=quiet)), as_json=as_json)
