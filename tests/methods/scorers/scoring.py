"""Pictures to score, and a scorer's values without a command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from clipkit.api import run
from clipkit.stages.score import score


def smooth(seed: int, size: tuple[int, int] = (160, 120)) -> Image.Image:
    """A picture of soft blotches of colour, without anything that looks like text."""
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)


def scored(records: list[dict[str, Any]], by: list[str], root: Path, **config: Any) -> list[dict[str, Any]]:
    """The records as `score` leaves them; those that fail carry their error."""
    runtime = {"root": str(root), **config.pop("runtime", {})}
    workers = config.pop("workers", 2)
    stage = score({"by": by, **config}, runtime)
    return [record.to_dict() for record in run(stage, [dict(r) for r in records], workers=workers, on_error="keep")]


def scores(records: list[dict[str, Any]], by: list[str], root: Path, **config: Any) -> list[dict[str, Any]]:
    """The `scores` alone; none may fail."""
    out = scored(records, by, root, **config)
    assert not [record["error"] for record in out if "error" in record]
    return [record["scores"] for record in out]
