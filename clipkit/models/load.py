"""A model's name to an encoder."""

from __future__ import annotations

from typing import TYPE_CHECKING

from clipkit.models.names import parse

if TYPE_CHECKING:
    from clipkit.models.base import Encoder


def load(name: str, *, device: str = "auto", precision: str = "auto", threads: int = 1) -> Encoder:
    """Load a model. See docs/models.md for what `name` may be.

    device: auto, cpu, cuda, cuda:N, mps. precision: auto, f32, bf16, f16. threads: that one call may use; the runner
    makes one call at a time per core, with 1. Raises ClipkitError (UsageError for a name that is none); never downloads
    what is cached.
    """
    parsed = parse(name)
    if parsed.kind == "lite":
        from clipkit.models import lite

        return lite.load(threads)
    if parsed.kind == "onnx":
        from clipkit.models import onnx

        return onnx.load(parsed.path, threads=threads)
    from clipkit.models import open_clip

    return open_clip.load(parsed, device=device, precision=precision, threads=threads)
