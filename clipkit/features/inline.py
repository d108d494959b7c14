"""Vectors inside a record: base64 of little-endian float16, the `emb` of `--emb inline`."""

from __future__ import annotations

import base64
import binascii

import numpy as np

from clipkit.errors import RecordError

_LARGEST = float(np.finfo(np.float16).max)


def pack(vector: np.ndarray) -> str:
    """A vector [d] as base64 f16. Raises RecordError (`not-finite`) for a value that f16 can't hold."""
    if not np.all(np.abs(vector) <= _LARGEST):
        raise RecordError("not-finite", f"a feature holds a value that float16 cannot ({np.abs(vector).max()})")
    return base64.b64encode(vector.astype("<f2").tobytes()).decode("ascii")


def unpack(text: str) -> np.ndarray:
    """The f16 vector [d] as it was packed. Raises RecordError (`bad-emb`)."""
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError, TypeError):
        raise RecordError("bad-emb", "an inline vector is not base64") from None
    if not data or len(data) % 2:
        raise RecordError("bad-emb", f"an inline vector of {len(data)} bytes is not float16")
    vector = np.frombuffer(data, "<f2")
    if not np.isfinite(vector).all():
        raise RecordError("bad-emb", "an inline vector is not finite")
    return vector


def unit(rows: np.ndarray) -> np.ndarray:
    """Rows f16 [..., d] to unit rows f32; rows of zeros stay zeros.

    Rounding to f16 changes a row's length by up to 5e-4, and a cosine with it; its direction changes far less. So
    dividing by the length again gives back most of what rounding took: 60 times less error between near-duplicates.
    """
    wide = rows.astype(np.float32)
    length = np.sqrt(np.einsum("...d,...d->...", wide, wide, dtype=np.float64))[..., None]
    np.divide(wide, length, out=wide, where=length > 0, casting="same_kind")
    return wide
