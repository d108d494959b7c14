"""The towers of an open_clip model as modules with plain inputs and outputs, and as ONNX graphs that were tried."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from clipkit.errors import ClipkitError, first_line
from clipkit.exporting import files
from clipkit.exporting.quiet import hushed
from clipkit.models.image_tower import ImageTower

if TYPE_CHECKING:
    from clipkit.exporting.base import Tower

INPUTS = {"image": "pixels", "text": "tokens"}
OPSET = 20  # what torch 2.14 writes without a version converter; 8-bit graphs of later ones are not valid everywhere
BATCHES = (1, 2, 5)  # at which a graph is run before it is believed
_OFF = 1e-4  # more is no rounding
_UPDATE = "update torch and onnxscript"


class ImageModule(nn.Module):
    """Pixels f32 [n, 3, h, w] to unit joint features [n, d] and, where the tower has them, backbone ones."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self._tower = ImageTower(model.visual)
        self.visual = model.visual
        self.proj = self._tower.proj  # torch.export wants each parameter to be some module's
        self.backbone_dim = self._tower.backbone_dim
        self.eval()

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, ...]:
        if self.proj is None:
            joint, behind = self._tower(pixels)
        else:
            out = self.visual(pixels)
            behind = out[0] if isinstance(out, tuple) else out
            joint = behind @ self.proj
        joint = functional.normalize(joint, dim=-1)
        return (joint,) if behind is None else (joint, behind)


class TextModule(nn.Module):
    """Tokens int64 [n, context_length] to unit joint features [n, d]."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        self.eval()

    def forward(self, tokens: torch.Tensor) -> tuple[torch.Tensor]:
        return (functional.normalize(self.model.encode_text(tokens, normalize=False), dim=-1),)


def outputs_of(module: nn.Module) -> list[str]:
    """The names of a tower's outputs."""
    return ["joint", "backbone"] if getattr(module, "backbone_dim", None) else ["joint"]


def example(tower: Tower, size: tuple[int, int], context_length: int, rows: int, seed: int = 0) -> torch.Tensor:
    """An input of a tower: noise, or texts of random tokens."""
    return torch.from_numpy(files.noise(tower, size, context_length, rows, seed))


def export_onnx(module: nn.Module, tower: Tower, given: torch.Tensor, path: Path, opset: int | None = None) -> int:
    """Write a tower as one ONNX file whose batch is free; returns the opset that it came to have.

    given: an example of at least two rows: torch takes a batch of 1 for a constant, and says nothing of it.
    Raises ClipkitError where torch cannot, where the graph isn't what was asked for, or gives other numbers.
    """
    batch = torch.export.Dim("batch", min=1)
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # a fused operator that ONNX has no word for
    try:
        with hushed(), torch.no_grad():
            program = torch.onnx.export(
                module,
                (given,),
                input_names=[INPUTS[tower]],
                output_names=outputs_of(module),
                dynamic_shapes=({0: batch},),
                opset_version=opset or OPSET,
                dynamo=True,
                verbose=False,
            )
            assert program is not None
            _forget(program.model)
            program.save(path, external_data=_bytes(module) >= files.ONE_FILE)
    except Exception as error:  # whatever torch's exporter runs into
        raise ClipkitError(f"torch cannot export the {tower} tower: {first_line(error)}") from error
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
    return verify(module, tower, given, path, opset)


def verify(module: nn.Module, tower: Tower, given: torch.Tensor, path: Path, opset: int | None = None) -> int:
    """Read back what was written and run it at several batch sizes against the module. Returns its opset.

    Raises ClipkitError for a graph of a fixed batch, of another opset than asked for, or with other numbers.
    """
    import onnx

    from clipkit.models.sessions import open_session

    found = files.require_opset(path, opset)
    graph = onnx.load(str(path), load_external_data=False)
    if not graph.graph.input[0].type.tensor_type.shape.dim[0].dim_param:
        raise ClipkitError(f"the {tower} tower came out with a fixed batch", _UPDATE)
    session = open_session(path, 1)
    for rows in BATCHES:
        batch = torch.stack([given[row % len(given)].roll(row) for row in range(rows)])  # no two of them alike
        with torch.inference_mode():
            wanted = module(batch)
        try:
            got = session.run(outputs_of(module), {INPUTS[tower]: batch.numpy()})
        except Exception as error:  # onnxruntime's exceptions have no common base
            said = f"the exported {tower} tower does not run at a batch of {rows}: {first_line(error)}"
            raise ClipkitError(said, _UPDATE) from None
        for name, right, value in zip(outputs_of(module), wanted, got, strict=True):
            if value.shape != tuple(right.shape):
                said = f"{name} has the shape {value.shape} instead of {tuple(right.shape)}"
            elif not (off := float(np.abs(right.numpy() - value).max() / max(1.0, float(right.abs().max())))) <= _OFF:
                said = f"{name} is off by {off:.2g}"
            else:
                continue
            raise ClipkitError(f"the exported {tower} tower is wrong at a batch of {rows}: {said}", _UPDATE)
    return found


def _forget(model: Any) -> None:
    """Take out where in which source file, on whose machine, each operator came from."""
    parts = [*model.graph.all_nodes(), *(output for node in model.graph.all_nodes() for output in node.outputs)]
    for part in (model, model.graph, *parts, *model.graph.initializers.values()):
        part.metadata_props.clear()
        part.doc_string = None


def _bytes(module: nn.Module) -> int:
    return sum(value.numel() * value.element_size() for value in (*module.parameters(), *module.buffers()))
