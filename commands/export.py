"""Write a model in a form that ships, and prove it true.

Group: Ship

The default is ONNX: image.onnx, text.onnx, tokenizer and preprocessing in a folder that every verb takes as --model,
without torch, and that plain onnxruntime runs with the script written beside. Each export ends with a report on real
pictures and texts (parity.json): below --min-cosine or --min-agreement it exits 1 and leaves nothing. `clipkit methods
exporters` has the targets.

Example:

    clipkit export --model ViT-B-32:laion2b_s34b_b79k -o onnx/
    clipkit export --model ViT-B-32:laion2b_s34b_b79k --int8 --samples photos/ -o small/
    clipkit export --to head --labels cats,dogs -o cats/
    clipkit zeroshot photos/ --labels cats,dogs --model ./onnx/
"""

from typing import Annotated

from typer import Option


def run(
    out: Annotated[str, Option("-o", "--out", metavar="DIR", help="A new folder.")],
    model: Annotated[str | None, Option(metavar="NAME", help="Any model. Default: the adapter's, else lite.")] = None,
    to: Annotated[str, Option("--to", metavar="TARGET", help="See: clipkit methods exporters.")] = "onnx",
) -> None:
    from clipkit.exporting.base import Wish
    from clipkit.exporting.running import Export, export
    from clipkit.exporting.samples import Samples

    export(Export(model=model, target=to, wish=Wish(), out=out, samples=lambda: Samples([], [], "")))
