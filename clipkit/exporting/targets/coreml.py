"""Core ML packages, for Apple's devices."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr
from typing import TYPE_CHECKING, Any, ClassVar

from clipkit.errors import ClipkitError, first_line
from clipkit.exporting.base import Job, Target, Written
from clipkit.exporting.quiet import hushed
from clipkit.models.coreml import INSTALL, require_macos

if TYPE_CHECKING:
    from torch.export import ExportedProgram


class CoreMl(Target):
    """Both towers as Core ML packages in f32, for iOS 16, macOS 13 and later: image.mlpackage and text.mlpackage; one
    row a call.

    Made from torch.export's programs. In f32 throughout: norms overflow 16 bits. Only macOS can run them, and no export
    is believed that was not run: elsewhere it is refused.
    """

    packages: ClassVar[Mapping[str, str]] = {"coremltools": INSTALL, "torch": "pip install clipkit"}
    runtime = "coreml"

    def check(self) -> None:
        require_macos()
        super().check()

    def write(self, job: Job) -> Written:
        from clipkit.exporting.graphs import outputs_of
        from clipkit.exporting.targets.torch_export import program

        for tower in job.wish.towers:
            module = job.source.module(tower)
            made = program(module, tower, job.source.example(tower, 1), free=False)
            try:
                package = convert(made, outputs_of(module))
            except Exception as error:  # whatever coremltools runs into
                said = first_line(error)
                raise ClipkitError(f"coremltools cannot convert the {tower} tower: {said}") from error
            package.save(str(job.folder / f"{tower}.mlpackage"))
        return Written(row_independent=False)


def convert(made: ExportedProgram, outputs: Sequence[str]) -> Any:
    """A program of one row as a Core ML model (MLModel) whose outputs have these names; tokens come in as int32."""
    with hushed(), redirect_stderr(io.StringIO()):  # it draws bars
        import coremltools

        model = coremltools.convert(
            made.run_decompositions({}),
            convert_to="mlprogram",
            compute_precision=coremltools.precision.FLOAT32,
            minimum_deployment_target=coremltools.target.iOS16,
            skip_model_load=True,
        )
        spec = model.get_spec()
        for output, name in zip(list(spec.description.output), outputs, strict=True):
            coremltools.utils.rename_feature(spec, output.name, name)
        return coremltools.models.MLModel(spec, weights_dir=model.weights_dir, skip_model_load=True)
