"""An exported folder: the same features without torch, and refused when anything about it is not as exported."""

from __future__ import annotations

import hashlib
import json
import operator
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clipkit.errors import ClipkitError, UsageError
from clipkit.exporting.source import Source
from clipkit.models.base import Encoder
from clipkit.models.exported import ExportedEncoder, read_manifest
from clipkit.models.load import load
from clipkit.models.open_clip import OpenClipEncoder
from tests.conftest import ROOT, InProcess
from tests.exporting.conftest import Maker
from tests.exporting.conftest import make as make
from tests.exporting.conftest import samples as samples
from tests.exporting.conftest import source as source

pytest.importorskip("onnxscript", reason="torch's ONNX exporter needs onnxscript")
TEXTS = ["a cat", "", "many " * 100, "ein Löwe 🦁", *(f"number {i}" for i in range(9))]


@dataclass(frozen=True)
class Exported:
    folder: Path
    source: OpenClipEncoder


@pytest.fixture(scope="session")
def exported(source: Callable[[str], Source], make: Maker, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    folder, made = tmp_path_factory.mktemp("export") / "tiny", source("tiny-vit")
    make("onnx", made, folder)
    assert isinstance(made.encoder, OpenClipEncoder)
    return Exported(folder, made.encoder)


@pytest.fixture
def folder(exported: Exported, tmp_path: Path) -> Path:
    """A copy that a test may spoil."""
    return Path(shutil.copytree(exported.folder, tmp_path / "model"))


def manifest(folder: Path, **changes: Any) -> None:
    path = folder / "clipkit.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def listed_anew(folder: Path, **changes: Any) -> None:
    """The manifest over the files that are there now."""
    files = {name: (folder / name).read_bytes() for name in json.loads((folder / "clipkit.json").read_text())["files"]}
    manifest(
        folder,
        files={name: hashlib.sha256(content).hexdigest() for name, content in files.items()},
        bytes={name: len(content) for name, content in files.items()},
        **changes,
    )


def random_pixels(encoder: Encoder, count: int) -> np.ndarray:
    shape = (count, 3, *encoder.identity.preprocess.size)
    return np.random.default_rng(0).standard_normal(shape, dtype=np.float32)


def error(folder: Path) -> ClipkitError:
    with pytest.raises(ClipkitError) as caught:
        load(str(folder))
    return caught.value


def spoil(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_features_are_the_sources(exported: Exported) -> None:
    encoder = load(str(exported.folder))
    assert isinstance(encoder, ExportedEncoder)
    source = exported.source
    images = random_pixels(source, 3)
    joint, backbone = encoder.encode_images(images, backbone=True)
    expected, expected_backbone = source.encode_images(images, backbone=True)
    assert joint.dtype == np.float32 and joint.flags.c_contiguous
    np.testing.assert_allclose(joint, expected, atol=2e-6)
    assert backbone is not None and expected_backbone is not None
    np.testing.assert_allclose(backbone, expected_backbone, atol=2e-5)
    np.testing.assert_allclose(encoder.encode_texts(TEXTS), source.encode_texts(TEXTS), atol=2e-6)
    assert encoder.count_tokens(TEXTS) == source.count_tokens(TEXTS)
    assert encoder.identity == source.identity
    assert encoder.space != source.space
    assert (encoder.logit_scale, encoder.logit_bias) == (source.logit_scale, None)


def test_the_image_alone(exported: Exported) -> None:
    joint, backbone = load(str(exported.folder)).encode_images(random_pixels(exported.source, 1))
    assert joint.shape == (1, 32) and backbone is None


@pytest.mark.parametrize("row_independent", [True, False])
def test_alone_equals_batched_bitwise(folder: Path, exported: Exported, row_independent: bool) -> None:
    manifest(folder, row_independent=row_independent)
    encoder = load(str(folder))
    images = random_pixels(exported.source, 11)
    joint, backbone = encoder.encode_images(images, backbone=True)
    texts = encoder.encode_texts(TEXTS)
    assert backbone is not None
    for row in range(len(images)):
        alone, behind = encoder.encode_images(images[row : row + 1], backbone=True)
        assert np.array_equal(alone[0], joint[row])
        assert behind is not None and np.array_equal(behind[0], backbone[row])
    for row, text in enumerate(TEXTS):
        assert np.array_equal(encoder.encode_texts([text])[0], texts[row])


def test_rows_that_are_not_independent_run_one_by_one(folder: Path, exported: Exported, tmp_path: Path) -> None:
    """Activations quantised by the range of a whole batch: a neighbour would move a row."""
    quantization = pytest.importorskip("onnxruntime.quantization")
    quantized = tmp_path / "quantized.onnx"
    quantization.quantize_dynamic(folder / "image.onnx", quantized, op_types_to_quantize=["MatMul", "Gemm"])
    quantized.replace(folder / "image.onnx")
    listed_anew(folder, precision="int8", row_independent=False)
    encoder = load(str(folder))
    images = random_pixels(exported.source, 4)
    images[3] *= 50  # a neighbour with a far larger range
    together = encoder.encode_images(images)[0]
    for row in range(4):
        assert np.array_equal(encoder.encode_images(images[row : row + 1])[0][0], together[row])
    manifest(folder, row_independent=True)
    assert not np.array_equal(load(str(folder)).encode_images(images)[0], together), "the flag is what makes it so"


def test_no_rows(exported: Exported) -> None:
    encoder = load(str(exported.folder))
    joint, backbone = encoder.encode_images(random_pixels(encoder, 0), backbone=True)
    assert joint.shape == (0, 32) and backbone is not None and backbone.shape == (0, 64)
    assert encoder.encode_texts([]).shape == (0, 32)


def test_without_torch(exported: Exported) -> None:
    program = """
import sys
sys.modules["torch"] = None  # importing it, or open_clip, fails
import numpy as np
from clipkit.models.load import load
from clipkit.text.classifier import classifier
from clipkit.text.labels import parse_labels
from clipkit.text.templates import resolve_templates
encoder = load(sys.argv[1])
weights = classifier(encoder, parse_labels("cats,dogs"), resolve_templates(["simple-7"]))
images, _ = encoder.encode_images(np.zeros((2, 3, 32, 32), np.float32))
print((images @ weights.T).shape)
"""
    command = [sys.executable, "-P", "-c", program, str(exported.folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == "(2, 2)\n"
    assert done.stderr == ""


def test_a_newer_format(folder: Path) -> None:
    manifest(folder, format=2)
    refused = error(folder)
    assert "has format 2; this clipkit reads 1" in refused.message and refused.hint == "update clipkit"


@pytest.mark.parametrize("name", ["image.onnx", "text.onnx"])
def test_a_missing_tower_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    assert f"lacks the file {name}" in error(folder).message


@pytest.mark.parametrize("name", ["image.onnx", "text.onnx"])
def test_a_changed_tower_is_found_when_it_is_asked_for_something(folder: Path, name: str) -> None:
    spoil(folder / name)
    encoder = load(str(folder))
    calls = {
        "image.onnx": lambda: encoder.encode_images(random_pixels(encoder, 1)),
        "text.onnx": lambda: encoder.encode_texts(["a cat"]),
    }
    for _ in range(2):
        with pytest.raises(ClipkitError, match=f"{name} is not the file that was exported"):
            calls[name]()
    calls[({*calls} - {name}).pop()]()


@pytest.mark.parametrize("name", ["image.onnx", "text.onnx", "tokenizer.json"])
def test_a_file_cut_short_is_found_at_once(name: str, folder: Path) -> None:
    """Features from the cache would hide it: the network is not asked for those."""
    size = (folder / name).stat().st_size
    os.truncate(folder / name, size - 1)
    assert f"{name} is not the file that was exported ({size - 1:,} bytes, it had {size:,})" in error(folder).message


def test_a_folder_of_before_sizes_were_written(folder: Path) -> None:
    described = json.loads((folder / "clipkit.json").read_text())
    del described["bytes"]
    (folder / "clipkit.json").write_text(json.dumps(described))
    os.truncate(folder / "image.onnx", 1000)
    model = load(str(folder))
    with pytest.raises(ClipkitError, match=r"image.onnx .*sha256 differs"):
        model.encode_images(random_pixels(model, 1))


def test_a_changed_tokenizer(folder: Path) -> None:
    spoil(folder / "tokenizer.json")
    assert "tokenizer.json is not the file that was exported" in error(folder).message


WEIRD: tuple[Any, ...] = (None, True, -1, 10**400, 1e999, "../x", "nul\0", [], [1], {}, {"a": 1}, [[]], 1.5)
MAY_BE = {  # of these, what is right somewhere: a field -> values
    "name": {"../x", "nul\0"},
    "identity.weights": {"../x", "nul\0"},
    "identity.activation": {"../x", "nul\0"},
    "identity.extra": {"{}", "{'a': 1}"},
    "preprocess.resize": {"None"},
    "logit_scale": {"-1", "1.5"},
    "logit_bias": {"None", "-1", "1.5"},
    "backbone_dim": {"None"},
    "runtime": {"../x", "nul\0"},
    "precision": {"../x", "nul\0"},
    "row_independent": {"True"},
    "bytes": {"{}", "{'a': 1}"},
}


def fields(described: dict[str, Any], before: str = "") -> Iterator[str]:
    for name, value in described.items():
        yield before + name
        if isinstance(value, dict) and name not in ("files", "bytes"):
            yield from fields(value, f"{before}{name}.")


def test_anything_anywhere_in_a_manifest_is_one_line(exported: Exported, tmp_path: Path) -> None:
    described = json.loads((exported.folder / "clipkit.json").read_text())
    refused = 0
    for path in fields(described):
        for value in WEIRD:
            changed = json.loads(json.dumps(described))
            *above, last = path.split(".")
            reduce(operator.getitem, above, changed)[last] = value
            (tmp_path / "clipkit.json").write_text(json.dumps(changed))
            if path == "clipkit" or str(value) in MAY_BE.get(path, ()):
                read_manifest(tmp_path)
                continue
            if path == "format" and value is True:
                continue  # it equals 1
            with pytest.raises(ClipkitError, match=r"clipkit\.json|has format") as caught:
                read_manifest(tmp_path)
            assert "\n" not in caught.value.message
            refused += 1
    assert refused > 200


def test_a_manifest_that_never_ends(tmp_path: Path) -> None:
    (tmp_path / "clipkit.json").write_text("[" * 100_000)
    with pytest.raises(ClipkitError, match="cannot read"):
        read_manifest(tmp_path)


def test_a_network_that_is_not_what_its_manifest_says(folder: Path, in_process: InProcess) -> None:
    described = json.loads((folder / "clipkit.json").read_text())
    manifest(folder, preprocess=described["preprocess"] | {"size": [48, 48]})
    done = in_process("zeroshot", ROOT / "samples" / "cat.jpg", "--labels", "a,b", "--model", f"{folder}/")
    assert done.code == 1 and len(done.stderr.splitlines()) == 2
    assert "image.onnx cannot be run" in done.stderr


def test_a_file_outside_the_folder(folder: Path) -> None:
    (folder.parent / "stray").touch()
    files = json.loads((folder / "clipkit.json").read_text())["files"]
    manifest(folder, files=files | {"../stray": "0" * 64})
    assert "lacks the file ../stray" in error(folder).message


def test_a_graph_that_is_none(folder: Path) -> None:
    (folder / "text.onnx").write_bytes(b"not a graph")
    listed_anew(folder)
    encoder = load(str(folder))  # a tower is opened when it is first used
    with pytest.raises(ClipkitError, match="onnxruntime cannot load"):
        encoder.encode_texts(["a cat"])


@pytest.mark.parametrize(
    "content", ["{", "[]", "{}", '{"format": 1, "kind": "adapter"}', '{"format": 1, "kind": "model"}']
)
def test_a_manifest_that_is_none(folder: Path, content: str) -> None:
    (folder / "clipkit.json").write_text(content)
    assert "clipkit.json" in error(folder).message


def test_another_precision_cannot_be_had(folder: Path) -> None:
    with pytest.raises(UsageError, match="it has no other precision"):
        load(str(folder), precision="bf16")
