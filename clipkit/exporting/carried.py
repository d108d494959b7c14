"""The carried model's image network in the form of an exported one."""

from __future__ import annotations

from pathlib import Path

from clipkit.models.lite.encoder import FOLDER


def image_graph(path: Path) -> Path:
    """Write lite's image network to PATH with the outputs `joint` and `backbone`."""
    import onnx

    model = onnx.load(str(FOLDER / "image.onnx"))
    for node in model.graph.node:
        for names in (node.input, node.output):
            for index, name in enumerate(names):
                if name == "pooled":
                    names[index] = "backbone"
    for output in model.graph.output:
        if output.name == "pooled":
            output.name = "backbone"
    onnx.save(model, str(path))
    return path
