"""Cut files are told from whole ones, in every format that says where it ends."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from clipkit.fetching.ending import has_end


def encoded(format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    Image.fromarray(noise).save(buffer, format, **options)
    return buffer.getvalue()


def with_thumbnail() -> bytes:
    """A JPEG with a whole JPEG in its first segment, as cameras write them."""
    data, inner = encoded("JPEG"), encoded("JPEG", quality=20)
    return data[:2] + b"\xff\xe1" + (len(inner) + 2).to_bytes(2, "big") + inner + data[2:]


WHOLE = {
    "baseline": ("JPEG", encoded("JPEG")),
    "progressive": ("JPEG", encoded("JPEG", progressive=True)),
    "thumbnail": ("JPEG", with_thumbnail()),
    "png": ("PNG", encoded("PNG")),
    "webp": ("WEBP", encoded("WEBP", lossless=True)),
}


@pytest.mark.parametrize("name", WHOLE)
def test_cut_or_whole(name: str) -> None:
    kind, data = WHOLE[name]
    assert has_end(data, kind)
    assert has_end(data + b"trailing \xff\xda bytes", kind)
    for cut in (10, 40, len(data) // 2, len(data) - 100):
        assert not has_end(data[:-cut], kind), cut


@pytest.mark.parametrize("format", ["GIF", "BMP", "TIFF", "AVIF"])
def test_others_are_not_judged(format: str) -> None:
    assert has_end(encoded(format)[:-10], format)
