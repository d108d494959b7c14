"""Exports for OpenVINO, and the models that they are."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from clipkit import load
from clipkit.errors import ClipkitError, UsageError
from clipkit.exporting.source import Source
from clipkit.models.base import Encoder
from tests.conftest import InProcess
from tests.exporting.conftest import Builder, Maker, pictures
from tests.exporting.scripts import check_script

pytest.importorskip("openvino")
TEXTS = ["a cat", "two dogs in the rain, and a boat behind them", "", "x", "a photo of a tree"]


@pytest.fixture(scope="session")
def folder(built: Builder) -> Callable[[str], Path]:
    return lambda arch: built("openvino", arch)[0]


def pixels(encoder: Encoder, count: int) -> np.ndarray:
    return np.stack([encoder.preprocess(picture) for picture in pictures(count)])


def test_weights_are_written_in_f32(folder: Callable[[str], Path], source: Callable[[str], Source]) -> None:
    """OpenVINO's own default would halve them."""
    visual = source("tiny-vit").module("image").visual
    needed = sum(value.numel() * 4 for value in visual.parameters())  # type: ignore[union-attr]
    assert (folder("tiny-vit") / "image.bin").stat().st_size >= needed
    assert 'element_type="f16"' not in (folder("tiny-vit") / "image.xml").read_text()


def test_computes_in_f32_on_every_processor(folder: Callable[[str], Path]) -> None:
    from clipkit.models.openvino import _Network

    network = _Network(folder("tiny-vit") / "image.xml", 1)
    assert network._compiled.get_property("INFERENCE_PRECISION_HINT").to_string() == "f32"


def test_rows_do_not_depend_on_their_neighbours(folder: Callable[[str], Path]) -> None:
    encoder = load(f"{folder('tiny-vit')}/")
    batch = pixels(encoder, 9)
    whole = encoder.encode_images(batch)[0]
    for part in (slice(0, 1), slice(3, 5), slice(2, 9)):
        assert np.array_equal(encoder.encode_images(batch[part])[0], whole[part])
    assert np.array_equal(encoder.encode_texts(TEXTS[::-1])[::-1], encoder.encode_texts(TEXTS))
    assert encoder.encode_images(batch[:0])[0].shape == (0, 32)


def test_several_threads_get_their_own_answers(folder: Callable[[str], Path]) -> None:
    encoder = load(f"{folder('tiny-vit')}/")
    batch = pixels(encoder, 8)
    wanted = encoder.encode_images(batch)[0]
    with ThreadPoolExecutor(4) as pool:
        rows = list(pool.map(lambda i: encoder.encode_images(batch[i % 8 : i % 8 + 1])[0][0], range(64)))
    for index, row in enumerate(rows):
        assert np.array_equal(row, wanted[index % 8])


def test_needs_no_torch_and_tells_nobody(folder: Callable[[str], Path], tmp_path: Path) -> None:
    """openvino-telemetry, once imported, leaves its identifier in ~/intel, and calls home."""
    code = f"""
import sys
from PIL import Image
from clipkit import load
encoder = load({str(folder("tiny-vit"))!r} + "/")
encoder.encode_images([encoder.preprocess(Image.new("RGB", (40, 30), "red"))])
encoder.encode_texts(["a cat"])
import openvino
assert not {{"torch", "open_clip", "onnxruntime"}} & sys.modules.keys(), sys.modules.keys()
assert not any(name.startswith("openvino_telemetry.") for name in sys.modules)
"""
    # The package is quiet in CI, as it knows it by these.
    plain = {key: value for key, value in os.environ.items() if key not in ("CI", "TF_BUILD", "JENKINS_URL")}
    subprocess.run([sys.executable, "-c", code], env=plain | {"HOME": str(tmp_path)}, check=True)
    assert not (tmp_path / "intel").exists()


def test_a_verb_runs_it(folder: Callable[[str], Path], in_process: InProcess, tmp_path: Path) -> None:
    pictures(1)[0].save(tmp_path / "a.png")
    run = in_process("zeroshot", tmp_path / "a.png", "--labels", "cat,dog", "--model", f"{folder('tiny-vit')}/")
    assert run.code == 0, run.stderr
    assert json.loads(run.stdout)["pred"]["label"] in ("cat", "dog")


def test_a_broken_network_is_one_line(folder: Callable[[str], Path], tmp_path: Path) -> None:
    from clipkit.models.openvino import OpenVinoTowers

    manifest = json.loads((folder("tiny-vit") / "clipkit.json").read_text())
    (tmp_path / "image.xml").write_text("<net/>")
    (tmp_path / "image.bin").write_bytes(b"")
    with pytest.raises(ClipkitError, match="OpenVINO cannot load") as caught:
        OpenVinoTowers(tmp_path, manifest, 1).image(np.zeros((1, 3, 32, 32), np.float32), ["joint"])
    assert "\n" not in caught.value.message
    del manifest["files"]["text.bin"]
    with pytest.raises(ClipkitError, match=r"no text tower \(text.bin\)"):
        OpenVinoTowers(tmp_path, manifest, 1)


def test_one_tower(source: Callable[[str], Source], make: Maker, tmp_path: Path) -> None:
    make("openvino", source("tiny-vit"), tmp_path / "out", towers=("text",))
    assert {path.name for path in tmp_path.glob("out/*")} >= {"text.xml", "text.bin", "tokenizer.json"}
    assert not list(tmp_path.glob("out/image.*"))


def test_what_it_does_not_take_is_refused(source: Callable[[str], Source], make: Maker, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--to openvino takes no --int8: onnx and head do"):
        make("openvino", source("tiny-vit"), tmp_path / "out", int8="weights")


def test_its_script_gives_the_same_answers(
    folder: Callable[[str], Path], source: Callable[[str], Source], tmp_path: Path
) -> None:
    check_script(folder("tiny-vit"), source("tiny-vit").encoder, tmp_path)
