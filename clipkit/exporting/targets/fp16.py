"""ONNX graphs with weights of 16 bits, computed in 32."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final

from clipkit.errors import ClipkitError
from clipkit.exporting.base import Job, Limits, Wish, Written
from clipkit.exporting.targets.onnx import Onnx

if TYPE_CHECKING:
    import onnx

    from clipkit.exporting.base import Tower

_TOLD: Final = 0.01  # share of weights too small for full precision that is worth a line; random ones have .002


class Fp16(Onnx):
    """Both towers as ONNX with f16 weights, half the size, for onnxruntime.

    They are computed in f32, as there are no f16 kernels for CPUs: inputs and outputs are f32, and once loaded the
    networks take the memory of f32 ones (but for token embeddings). Norms, biases and logit parameters stay f32.
    """

    takes: ClassVar[frozenset[str]] = frozenset({"opset", "external_data", "embed_preprocessing"})

    @classmethod
    def limits_of(cls, wish: Wish) -> Limits:
        return Limits(0.999, 0.95)  # rounding moves a cosine by 1e-4: of 48 pictures one may have two texts so close

    def networks(self, job: Job) -> tuple[dict[Tower, Path], Written]:
        from clipkit.exporting import files

        graphs, told, alone = {}, {}, True
        for tower in job.wish.towers:
            model, small = halved(job.source.graph(tower))
            graphs[tower] = job.scratch / f"{tower}.f16.onnx"
            files.save(model, graphs[tower])
            alone &= files.rows_stand_alone(graphs[tower], job.source.noise(tower))
            told[tower] = small
            if small > _TOLD:
                job.tell(f"{tower}: {small:.1%} of the weights are below 0.00006, where f16 has less than its 11 bits")
        facts = {"small_weights": told}
        return graphs, Written("f16", same_weights=False, row_independent=alone, facts=facts)


def halved(path: Path) -> tuple[onnx.ModelProto, float]:
    """A graph with its f32 matrices and kernels in f16, and the share of them that f16 holds with fewer bits.

    Rounding is to nearest, nothing else changes: each is cast to f32 before it is used, rows of a table after they are
    taken. Raises ClipkitError for a weight beyond f16's range, by its name, and where nothing is left to be halved.
    """
    import numpy as np
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    model = onnx.load(str(path))
    graph = model.graph
    halves: dict[str, str] = {}
    small, count = 0, 0
    for tensor in graph.initializer:
        if tensor.data_type != TensorProto.FLOAT or len(tensor.dims) < 2:
            continue
        exact = numpy_helper.to_array(tensor)
        if np.isneginf(exact).any():  # the mask of a causal text tower is no weight
            continue
        sizes = np.abs(exact)
        if not (sizes <= np.finfo(np.float16).max).all():
            raise ClipkitError(
                f"{tensor.name} holds {sizes.max():.3g}, and f16 ends at {np.finfo(np.float16).max:.0f}",
                "--to onnx keeps f32; --int8 has no such end",
            )
        small += int(((sizes > 0) & (sizes < np.finfo(np.float16).smallest_normal)).sum())
        count += sizes.size
        halves[tensor.name] = f"{tensor.name}.f16"
        tensor.CopyFrom(numpy_helper.from_array(exact.astype(np.float16), halves[tensor.name]))
    if not halves:  # lite's: it would be the same network under another identity
        raise ClipkitError("the weights of this model have 16 bits already", "--to onnx ships them as they are")
    nodes: list[Any] = []
    for node in graph.node:
        if node.op_type == "Gather" and node.input[0] in halves:
            made, rows = node.output[0], f"{node.output[0]}.f16"
            node.input[0], node.output[0] = halves[node.input[0]], rows
            nodes += [node, helper.make_node("Cast", [rows], [made], made, to=TensorProto.FLOAT)]
        else:
            nodes.append(node)
    read = {name for node in nodes for name in node.input} | {output.name for output in graph.output}
    casts = [
        helper.make_node("Cast", [half], [name], half, to=TensorProto.FLOAT)
        for name, half in halves.items()
        if name in read
    ]
    del graph.node[:]
    graph.node.extend([*casts, *nodes])
    return model, small / max(1, count)
