"""How a pack is cut into shards."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final

from clipkit.errors import UsageError
from clipkit.packing.shards import Coco, Folder, Format, WebDataset
from clipkit.packing.tables import Csv, Parquet

FORMATS: Final[dict[str, type[Format]]] = {
    "wds": WebDataset,
    "folder": Folder,
    "parquet": Parquet,
    "csv": Csv,
    "coco": Coco,
}


@dataclass(frozen=True, slots=True)
class Layout:
    """How a pack is cut. to: one of FORMATS. max_count: samples a shard. max_size: bytes a shard, None for any."""

    to: str = "wds"
    max_count: int = 10_000
    max_size: int | None = None

    def parameters(self) -> dict[str, Any]:
        return {"to": self.to, "max_count": self.max_count, "max_size": self.max_size}

    def config(self) -> dict[str, Any]:
        """What the stage `Pack` has to know of it."""
        form = FORMATS[self.to]
        return {"images": form.with_images, "text_only": form.without_image}


_UNITS: Final = {"": 1, "B": 1} | {
    prefix + unit: base**power
    for power, prefix in enumerate("KMGT", 1)
    for unit, base in (("", 1000), ("B", 1000), ("IB", 1024))
}


def parse_size(text: str) -> int:
    """`1GB`, `500 MB` or `64MiB` in bytes. Raises UsageError."""
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?) ?([A-Za-z]*)", text.strip())
    size = int(float(found[1]) * _UNITS.get(found[2].upper(), 0)) if found else 0
    if not size:
        raise UsageError(f"--max-size takes bytes, not {text!r}", "for example: --max-size 1GB, 500MB or 64MiB")
    return size
