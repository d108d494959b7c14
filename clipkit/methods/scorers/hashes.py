"""What a picture is known by: its bytes, its pixels, and how it looks."""

from __future__ import annotations

import hashlib
from typing import Any, ClassVar

from clipkit.images.hashing import dhash, phash, pixel_digest, to_hex
from clipkit.methods.scorers.base import DATA, PIXELS, Sample, Scorer


class Hash(Scorer):
    """`sha256` of the file's bytes, as `scan --hash` adds it; `pixel_sha256`, `phash` and `dhash` of the picture.

    The last three are of the upright RGB picture, so that turning it by EXIF alone, or saving it again without loss,
    changes none of them: see `clipkit.images.hashing`. sha256: 64 hex digits; phash, dhash: 16.
    """

    name: ClassVar[str] = "hash"
    needs: ClassVar[frozenset[str]] = frozenset({DATA, PIXELS})
    outputs: tuple[str, ...] = ("sha256", "pixel_sha256", "phash", "dhash")

    def look(self, sample: Sample) -> dict[str, Any]:
        assert sample.data is not None and sample.pixels is not None
        return {
            "sha256": hashlib.sha256(sample.data).hexdigest(),
            "pixel_sha256": pixel_digest(sample.pixels),
            "phash": to_hex(phash(sample.pixels)),
            "dhash": to_hex(dhash(sample.pixels)),
        }

    def score(self, sample: Sample, looked: Any) -> dict[str, Any]:
        return dict(looked)
