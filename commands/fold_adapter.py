"""Turn an adapter into a linear head, or into a model.

Group: Adapt

Where the adapter is linear in the features, a safetensors file: its tensors are `bias` and, for the features that the
adapter works on, `joint` and `backbone`; its metadata the classes, the model's identity and this formula. The adapter's
very logits are joint_features @ joint.T + backbone_features @ backbone.T + bias (without the term of a tensor that
isn't there), of rows divided by their length: backbone features in a store are not of unit length. Where the adapter
changes the model (lora, svd), a folder with the merged weights, which --model and open_clip load as any other.

Example:

    clipkit fold-adapter parts.adapter -o head.safetensors
    clipkit fold-adapter lora.adapter -o merged/
    clipkit zeroshot photos/ --labels cats,dogs --model ./merged/
"""

import json
from typing import Annotated

from typer import Argument, Option


def run(
    adapter: Annotated[str, Argument(metavar="ADAPTER", help="A folder that train-adapter wrote.")],
    out: Annotated[str, Option("-o", "--out", metavar="FILE|DIR", help="The head, or a new folder for the model.")],
    model: Annotated[
        str | None, Option(metavar="NAME", help="The adapter's model, where it isn't found by its name: a folder.")
    ] = None,
    as_json: Annotated[bool, Option("--json", help="What was made, as one JSON object.")] = False,
) -> None:
    from clipkit.methods.adapters.folding import fold
    from clipkit.terminal import printable

    made = fold(adapter, out, model)
    if as_json:
        print(json.dumps(made, ensure_ascii=False))
    elif made["kind"] == "model":
        print(printable(f"{out}: the model {made['model']}"))
    else:
        over = " and ".join(f"{made[space]:,} {space}" for space in ("joint", "backbone") if space in made)
        print(printable(f"{out}: a head of {made['classes']:,} classes over {over} features of {made['model']}"))
