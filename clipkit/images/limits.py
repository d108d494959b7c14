"""How much one image may ask for."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Bounds that hold before anything is decoded.

    max_bytes: of the encoded file. max_pixels: width times height by the header; the default is where Pillow
    starts to warn, and keeps the worst file of every format read here under 1 GB of memory.
    """

    max_bytes: int = 256 << 20
    max_pixels: int = 89_478_485
