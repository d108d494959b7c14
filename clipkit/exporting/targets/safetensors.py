"""A model as open_clip has it on the hub: weights in one safetensors file, and its configuration."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from clipkit.exporting.base import Job, Written
from clipkit.exporting.whole import WholeModel

if TYPE_CHECKING:
    from pathlib import Path

    from clipkit.models.base import Encoder

INSTALL = "pip install open_clip_torch"


class Safetensors(WholeModel):
    """Weights, configuration and tokenizer as open_clip has them on the hub: open_clip loads it (local-dir:), every
    verb does, and a .pt becomes a file that holds no code. The source's very weights; any model of open_clip."""

    packages: ClassVar = {"open_clip": INSTALL, "safetensors": "pip install safetensors"}

    def write(self, job: Job) -> Written:
        self.encoder(job).save_model(job.folder)
        return Written()

    def open(self, folder: Path) -> Encoder:
        from clipkit.models.load import load

        return load(f"{folder.resolve()}/", device="cpu", precision="f32")
