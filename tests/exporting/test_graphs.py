"""Graphs are believed after they have run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from clipkit.exporting.source import Source
from clipkit.models.load import load
from tests.models.tiny import FAMILIES


@pytest.mark.parametrize("arch", FAMILIES)
def test_every_family(exported: Callable[[str], Path], source: Callable[[str], Source], arch: str) -> None:
    encoder, whole = load(str(exported(arch))), source(arch).encoder
    pixels = np.random.default_rng(0).standard_normal((3, 3, *whole.identity.preprocess.size), dtype=np.float32)
    np.testing.assert_allclose(encoder.encode_images(pixels)[0], whole.encode_images(pixels)[0], atol=1e-5)
    texts = ["a cat", "", "many " * 100]
    np.testing.assert_allclose(encoder.encode_texts(texts), whole.encode_texts(texts), atol=1e-5)
