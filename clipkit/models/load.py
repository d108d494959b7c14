"""A model's name to an encoder."""

from __future__ import annotations

from typing import TYPE_CHECKING

from clipkit.errors import UsageError
from clipkit.models.device import check_name
from clipkit.models.names import ModelName, parse

if TYPE_CHECKING:
    from clipkit.models.base import Encoder


def load(name: str, *, device: str = "auto", precision: str = "auto", threads: int = 1) -> Encoder:
    """Load a model. See docs/models.md for what `name` may be.

    device: auto, cpu, cuda, cuda:N, mps (of open_clip's models; the others run on the CPU).
    precision: auto, f32, bf16, f16.
    threads: that one call may use; the runner makes as many calls at once as there are cores, with 1.
    Raises ClipkitError (UsageError for a name that is none). What is cached is not asked for again.
    """
    parsed = parse(name)
    check_name(device)
    if parsed.kind in ("lite", "exported"):
        encoder = _carried(parsed, threads)
        if precision not in ("auto", encoder.precision):
            raise UsageError(f"{name} is {encoder.precision}: it has no other precision", "leave --precision out")
        return encoder
    from clipkit.models import open_clip

    return open_clip.load(parsed, device=device, precision=precision, threads=threads)


def _carried(name: ModelName, threads: int) -> Encoder:
    """The backends without torch: they run on the CPU, whatever the default device is."""
    if name.kind == "lite":
        from clipkit.models import lite

        return lite.load(threads)
    from clipkit.models import exported

    return exported.load(name.path, threads=threads)
