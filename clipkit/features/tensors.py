"""Arrays in a safetensors file: the same bytes each time, and under its name when it is whole."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np


def write(path: str, tensors: Mapping[str, np.ndarray], said: Mapping[str, str]) -> None:
    """Write arrays (C-contiguous) and what the file says of them."""
    from safetensors.numpy import save

    _write(path, _in_order(save(dict(tensors), dict(said))))


def _in_order(data: bytes) -> bytes:
    """A safetensors file with its header in order: as it comes, what it says is in a new order each time."""
    end = 8 + int.from_bytes(data[:8], "little")
    header = json.dumps(json.loads(data[8:end]), sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + data[end:]


def _write(path: str, data: bytes) -> None:
    """Write a file beside and rename it; what cannot be renamed over (a pipe, a device) directly."""
    target = Path(os.path.realpath(path))
    if target.exists() and not target.is_file():
        target.write_bytes(data)
        return
    part = target.with_name(target.name + ".part")
    try:
        with open(part, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, target)
    except BaseException:
        with contextlib.suppress(OSError):
            part.unlink()
        raise
