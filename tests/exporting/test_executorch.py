"""ExecuTorch's programs. Without the package: that this is said; with it: that they run here and give the features."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clipkit import load
from clipkit.errors import ClipkitError, MissingPackage
from clipkit.exporting.base import Wish
from clipkit.exporting.source import Source
from clipkit.exporting.targets.executorch import ExecuTorch
from tests.exporting.conftest import Maker, pictures
from tests.exporting.scripts import check_script


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "executorch", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "executorch" else find_spec(name))
    with pytest.raises(MissingPackage, match="needs the package executorch") as caught:
        ExecuTorch(Wish())
    assert caught.value.hint == "run: pip install 'clipkit[executorch]'"


@pytest.mark.slow
def test_programs_have_the_sources_features(source: Callable[[str], Source], make: Maker, tmp_path: Path) -> None:
    pytest.importorskip("executorch")
    before = source("tiny-vit").encoder
    written = make("executorch", source("tiny-vit"), tmp_path / "out")
    assert not written.row_independent
    after: Any = load(f"{tmp_path / 'out'}/")
    batch = np.stack([before.preprocess(picture) for picture in pictures(3)])
    joint, backbone = before.encode_images(batch, backbone=True)
    found, behind = after.encode_images(batch, backbone=True)
    np.testing.assert_allclose(found, joint, atol=1e-5)
    np.testing.assert_allclose(behind, backbone, atol=1e-4)
    texts = ["a cat", "two dogs in the rain", ""]
    np.testing.assert_allclose(after.encode_texts(texts), before.encode_texts(texts), atol=1e-5)
    assert np.array_equal(after.encode_texts(texts[::-1])[::-1], after.encode_texts(texts))
    assert after.identity.digest == before.identity.digest
    (tmp_path / "scratch").mkdir()
    check_script(tmp_path / "out", before, tmp_path / "scratch")


def test_a_broken_program_is_one_line(tmp_path: Path) -> None:
    pytest.importorskip("executorch")
    from clipkit.models.executorch import ExecuTorchTowers

    (tmp_path / "text.pte").write_bytes(b"no program" * 100)
    towers = ExecuTorchTowers(tmp_path, {"towers": ["text"], "files": {"text.pte": ""}}, 1)
    with pytest.raises(ClipkitError, match="ExecuTorch cannot load") as caught:
        towers.text(np.zeros((1, 77), np.int64))
    assert "\n" not in caught.value.message
