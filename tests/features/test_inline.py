"""Vectors inside records, and why rows are normalised again after float16."""

from __future__ import annotations

import base64

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from clipkit.errors import ClipkitError, RecordError
from clipkit.features.inline import pack, unit, unpack

ROWS = hnp.arrays(np.float16, st.integers(1, 64), elements=st.floats(-1, 1, width=16))


@given(ROWS)
def test_f16_goes_in_and_out_unchanged(row: np.ndarray) -> None:
    assert unpack(pack(row.astype(np.float32))).tobytes() == row.tobytes()


def test_the_text_is_base64_of_little_endian_float16() -> None:
    assert pack(np.array([1.0, -2.0], np.float32)) == base64.b64encode(b"\x00\x3c\x00\xc0").decode()


@pytest.mark.parametrize("text", ["", "?", "AAA", "AA==", "AH4=", "é", "dir#0:3"])
def test_what_is_no_vector_is_a_record_error(text: str) -> None:
    with pytest.raises(RecordError) as caught:
        unpack(text)
    assert caught.value.kind == "bad-emb"


@pytest.mark.parametrize("value", [np.nan, np.inf, 70_000.0])
def test_what_float16_cannot_hold_is_an_error(value: float) -> None:
    with pytest.raises(ClipkitError):
        pack(np.array([0, value], np.float32))


@given(ROWS)
def test_unit_rows_have_length_one_or_are_zero(row: np.ndarray) -> None:
    out = unit(np.stack([row, row]))
    assert out.dtype == np.float32
    length = np.linalg.norm(out.astype(np.float64), axis=1)
    assert np.allclose(length, 1 if row.any() else 0, atol=1e-6)
    assert out[0].tobytes() == unit(row).tobytes()  # a row doesn't depend on its neighbours


def test_normalising_again_takes_most_of_the_error_of_float16_away() -> None:
    """Near-duplicates of 512 dimensions, 1 - cosine about 4.5e-4: the worst error falls from 8e-5 to below 2e-6."""
    draw = np.random.default_rng(7)
    first = draw.normal(size=(2000, 512))
    first /= np.linalg.norm(first, axis=1, keepdims=True)
    second = first + draw.normal(size=first.shape) * np.sqrt(2 * 4.5e-4 / 512)
    second /= np.linalg.norm(second, axis=1, keepdims=True)
    exact = np.sum(first * second, axis=1)
    assert np.allclose(1 - exact, 4.5e-4, rtol=0.3)
    low = first.astype(np.float16), second.astype(np.float16)
    raw = np.sum(low[0].astype(np.float64) * low[1].astype(np.float64), axis=1)
    again = np.sum(unit(low[0]).astype(np.float64) * unit(low[1]).astype(np.float64), axis=1)
    raw_error, error = np.abs(raw - exact).max(), np.abs(again - exact).max()
    assert raw_error > 4e-5
    assert error < 3e-6
    assert raw_error / error > 30
