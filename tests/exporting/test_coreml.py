"""Core ML packages: made and run on macOS; elsewhere the conversion alone, where coremltools is installed."""

from __future__ import annotations

import platform
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from clipkit import load
from clipkit.errors import ClipkitError, MissingPackage
from clipkit.exporting.source import Source
from tests.conftest import Runner
from tests.exporting.conftest import Maker, pictures

MAC = platform.system() == "Darwin"


@pytest.mark.skipif(MAC, reason="a Mac can")
def test_elsewhere_it_is_refused_before_anything_is_loaded(clipkit: Runner, tmp_path: Path) -> None:
    run = clipkit("export", "--to", "coreml", "--model", "./none-there/", "-o", tmp_path / "out", cwd=tmp_path)
    assert run.code == 1
    assert run.stderr.splitlines()[0] == f"clipkit export: Core ML runs on macOS alone, and this is {platform.system()}"
    assert not (tmp_path / "out").exists()
    assert not run.stdout


@pytest.mark.skipif(MAC, reason="a Mac can")
def test_a_package_made_on_a_mac_is_refused_elsewhere(tmp_path: Path) -> None:
    from clipkit.models.coreml import CoreMlTowers

    with pytest.raises(ClipkitError, match="Core ML runs on macOS alone"):
        CoreMlTowers(tmp_path, {"towers": ["image"], "files": {}}, 1)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from clipkit.exporting.base import Wish
    from clipkit.exporting.targets.coreml import CoreMl

    monkeypatch.setattr("platform.system", lambda: "Darwin")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingPackage, match="needs the package coremltools") as caught:
        CoreMl(Wish())
    assert caught.value.hint == "run: pip install 'clipkit[coreml]'"


@pytest.mark.slow
def test_what_is_converted_takes_and_gives_what_it_should(source: Callable[[str], Source], tmp_path: Path) -> None:
    pytest.importorskip("coremltools")
    from clipkit.exporting.graphs import outputs_of
    from clipkit.exporting.targets.coreml import convert
    from clipkit.exporting.targets.torch_export import program

    given = source("tiny-vit")
    for tower, kind in (("image", "FLOAT32"), ("text", "INT32")):
        module = given.module(tower)  # type: ignore[arg-type]
        model = convert(program(module, tower, given.example(tower, 1), free=False), outputs_of(module))  # type: ignore[arg-type]
        about = model.get_spec().description
        (entrance,) = about.input
        assert entrance.name == {"image": "pixels", "text": "tokens"}[tower]
        assert list(entrance.type.multiArrayType.shape) == ([1, 3, 32, 32] if tower == "image" else [1, 77])
        assert f"dataType: {kind}" in str(entrance)
        assert [output.name for output in about.output] == outputs_of(module)
        assert all("dataType: FLOAT32" in str(output) for output in about.output)
        model.save(str(tmp_path / f"{tower}.mlpackage"))
        (weights,) = (tmp_path / f"{tower}.mlpackage").rglob("weight.bin")
        used = module.visual if tower == "image" else module.model.token_embedding
        assert weights.stat().st_size >= 4 * sum(value.numel() for value in used.parameters()) * 0.99


@pytest.mark.slow
@pytest.mark.skipif(not MAC, reason="runs on macOS alone")
def test_packages_have_the_sources_features(source: Callable[[str], Source], make: Maker, tmp_path: Path) -> None:
    pytest.importorskip("coremltools")
    make("coreml", source("tiny-vit"), tmp_path / "out")
    before, after = source("tiny-vit").encoder, load(f"{tmp_path / 'out'}/")
    batch = np.stack([before.preprocess(picture) for picture in pictures(3)])
    np.testing.assert_allclose(after.encode_images(batch)[0], before.encode_images(batch)[0], atol=1e-4)
    np.testing.assert_allclose(after.encode_texts(["a cat"]), before.encode_texts(["a cat"]), atol=1e-4)
