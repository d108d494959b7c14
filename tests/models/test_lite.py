"""The carried model: its files, the formulas of its head, rows that don't depend on their neighbours, its quality."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import numpy_helper
from PIL import Image

from clipkit.errors import ClipkitError
from clipkit.models.lite import Lite, encoder, load

ROOT = Path(__file__).resolve().parents[2]
FOLDER = encoder.FOLDER
SEMANTIC = 384

TEXTS = [
    "a photo of a cat.",
    "a kitten asleep on a sofa",
    "two dogs play in the snow",
    "The quarterly report was late.",
    "",
    "Café, 日本語 🐱",
    "word " * 300,
]


@cache
def opened() -> Lite:
    return load()


@pytest.fixture
def lite() -> Lite:
    return opened()


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    """Seven inputs: noise, flat, extreme."""
    rng = np.random.default_rng(7)
    batch = rng.standard_normal((7, 3, 224, 224)).astype(np.float32)
    batch[1], batch[2], batch[3] = 0.0, -1.0, 1.0
    return batch


def manifest() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((FOLDER / "lite.json").read_bytes())
    return found


# its files


def test_files_are_what_the_manifest_says() -> None:
    digests = {name: hashlib.sha256((FOLDER / name).read_bytes()).hexdigest() for name in manifest()["files"]}
    assert digests == manifest()["files"]
    assert manifest()["weights"] == hashlib.sha256("\n".join(digests.values()).encode()).hexdigest()
    assert set(digests) == {path.name for path in FOLDER.iterdir() if path.suffix in (".onnx", ".json")} - {"lite.json"}


def test_all_files_together_stay_small() -> None:
    assert sum(path.stat().st_size for path in FOLDER.iterdir() if path.is_file()) < 40e6


def test_a_missing_file_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "lite.json").write_bytes((FOLDER / "lite.json").read_bytes())
    monkeypatch.setattr(encoder, "FOLDER", tmp_path)
    with pytest.raises(ClipkitError, match=r"text\.onnx of the model lite is missing"):
        load().encode_texts(["a cat"])


def test_no_torch_is_loaded() -> None:
    script = (
        "import sys, numpy; from PIL import Image; from clipkit.models.lite import load; lite = load();"
        "lite.encode_texts(['a cat']);"
        "lite.encode_images(lite.preprocess(Image.new('RGB', (300, 200)))[None]);"
        "print(sorted({'torch', 'open_clip', 'torchvision', 'timm', 'transformers'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"


def test_nothing_is_opened_before_it_is_used() -> None:
    script = "import sys; from clipkit.models.lite import load; load(); print('onnxruntime' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "False"


# the encoder's contract


def test_features_are_unit_f32_rows(lite: Lite, pixels: np.ndarray) -> None:
    joint, backbone = lite.encode_images(pixels, backbone=True)
    texts = lite.encode_texts(TEXTS)
    assert backbone is not None
    assert joint.shape == (7, lite.identity.dim) and texts.shape == (len(TEXTS), lite.identity.dim)
    assert backbone.shape == (7, lite.backbone_dim)
    for rows in (joint, texts, backbone):
        assert rows.dtype == np.float32 and rows.flags.c_contiguous and np.isfinite(rows).all()
    for rows in (joint, texts):
        np.testing.assert_allclose(np.linalg.norm(rows.astype(np.float64), axis=1), 1, atol=1e-6)


def test_backbone_features_only_on_request(lite: Lite, pixels: np.ndarray) -> None:
    assert lite.encode_images(pixels[:1])[1] is None


def test_no_rows_give_no_rows(lite: Lite, pixels: np.ndarray) -> None:
    assert lite.encode_images(pixels[:0])[0].shape == (0, 512)
    assert lite.encode_texts([]).shape == (0, 512)


def test_texts_have_no_detail(lite: Lite) -> None:
    assert not lite.encode_texts(TEXTS)[:, SEMANTIC:].any()


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_a_row_does_not_depend_on_its_batch(lite: Lite, pixels: np.ndarray, size: int) -> None:
    whole = lite.encode_images(pixels, backbone=True)
    for part, rows in zip(whole, zip(*image_batches(lite, pixels, size), strict=True), strict=True):
        assert part is not None
        assert np.concatenate(rows).tobytes() == part.tobytes()
    texts = [lite.encode_texts(TEXTS[at : at + size]) for at in range(0, len(TEXTS), size)]
    assert np.concatenate(texts).tobytes() == lite.encode_texts(TEXTS).tobytes()


def image_batches(lite: Lite, pixels: np.ndarray, size: int) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
    return (lite.encode_images(pixels[at : at + size], backbone=True) for at in range(0, len(pixels), size))


@settings(max_examples=20, deadline=None)
@given(st.lists(st.text(max_size=40), min_size=2, max_size=4))
def test_any_text_alone_is_the_text_in_company(texts: list[str]) -> None:
    lite = opened()
    alone = np.concatenate([lite.encode_texts([text]) for text in texts])
    assert alone.tobytes() == lite.encode_texts(texts).tobytes()


def test_four_callers_at_once_get_what_one_gets(pixels: np.ndarray) -> None:
    serial = load()
    images = [serial.encode_images(pixels[row : row + 1])[0].tobytes() for row in range(7)]
    texts = [serial.encode_texts([text]).tobytes() for text in TEXTS]
    shared = load()  # opened by whichever thread comes first
    with ThreadPoolExecutor(4) as pool:
        rows = list(range(7)) * 3
        found_images = pool.map(lambda row: shared.encode_images(pixels[row : row + 1])[0].tobytes(), rows)
        found_texts = pool.map(lambda row: shared.encode_texts([TEXTS[row]]).tobytes(), rows)
        assert list(found_images) == images * 3
        assert list(found_texts) == texts * 3


def test_threads_change_nothing(lite: Lite, pixels: np.ndarray) -> None:
    many = load(threads=3)
    assert many.encode_images(pixels)[0].tobytes() == lite.encode_images(pixels)[0].tobytes()
    assert many.encode_texts(TEXTS).tobytes() == lite.encode_texts(TEXTS).tobytes()


def test_preprocessing_is_short_side_then_centre_in_units_of_128(lite: Lite) -> None:
    gradient = np.tile(np.arange(448, dtype=np.uint8)[None, :, None] // 2, (224, 1, 3))
    found = lite.preprocess(Image.fromarray(gradient))
    assert found.shape == (3, 224, 224) and found.dtype == np.float32
    expected = (gradient[:, 112:336].astype(np.float64) - 127) / 128  # already 224 high: only cropped
    np.testing.assert_allclose(found, expected.transpose(2, 0, 1), atol=1e-6)


# texts


def test_token_counts_and_the_cut(lite: Lite) -> None:
    assert lite.count_tokens(["a photo of a cat.", "", "word " * 300]) == [8, 2, 302]
    first = "word " * (lite.context_length - 2)
    cut = lite.encode_texts([first + "zebra " * 50, first + "quarterly " * 10, first])
    assert cut[0].tobytes() == cut[1].tobytes() == cut[2].tobytes()
    assert lite.encode_texts(["word " * (lite.context_length - 3) + "zebra"]).tobytes() != cut[2:].tobytes()


def test_token_ids_are_the_original_ones() -> None:
    """From the tokenizer.json of all-MiniLM-L6-v2."""
    golden = {
        "a photo of a cat.": [101, 1037, 6302, 1997, 1037, 4937, 1012, 102],
        "Café naïve ÀÉ": [101, 7668, 15743, 29347, 102],
        "日本語 text": [101, 1864, 1876, 1950, 3793, 102],
        "hello\u200bworld  \t x": [101, 7592, 11108, 1060, 102],
        "antidisestablishmentarianism": [101, 3424, 10521, 4355, 7875, 13602, 3672, 12199, 2964, 102],
        "🐱 emoji": [101, 100, 7861, 29147, 2072, 102],
    }
    tokenizer = encoder._open_tokenizer()
    assert {text: tokenizer.encode(text).ids for text in golden} == golden


def test_an_undecodable_argument_is_a_text(lite: Lite) -> None:
    assert lite.encode_texts(["a \udcff cat"]).tobytes() == lite.encode_texts(["a ? cat"]).tobytes()


def test_sentence_embeddings_are_minilms() -> None:
    """Cosines of the original weights, computed with torch in float64; 8-bit weights may move them a little."""
    texts = TEXTS[:4]
    expected = [
        [1.0, 0.399, 0.1845, 0.0027],
        [0.399, 1.0, 0.1085, 0.0232],
        [0.1845, 0.1085, 1.0, -0.0075],
        [0.0027, 0.0232, -0.0075, 1.0],
    ]
    found = unit(inner("mean", texts))
    np.testing.assert_allclose(found @ found.T, expected, atol=0.01)


# the head, computed again in float64 from its constants


def test_text_head(lite: Lite) -> None:
    head = constants("text.onnx")
    q = unit(unit(unit(inner("mean", TEXTS[:6])) - head["text_mean"]) @ head["whitening.f16"])
    likeness = unit(np.maximum(q @ head["anchors_t.f16"], 0) ** 2)
    expected = unit(np.hstack([q, likeness]) @ head["basis.f16"])
    np.testing.assert_allclose(lite.encode_texts(TEXTS[:6])[:, :SEMANTIC], expected, atol=2e-6)


def test_image_head(lite: Lite, pixels: np.ndarray) -> None:
    head = constants("image.onnx")
    joint, pooled = lite.encode_images(pixels, backbone=True)
    assert pooled is not None
    logits = pooled.astype(np.float64) @ head["classifier.f16"].T + head["bias"]
    scores = np.exp((logits - logits.max(1, keepdims=True)) / 1.5)
    p = scores / scores.sum(1, keepdims=True)
    p[p < np.sort(p, axis=1)[:, -50][:, None]] = 0
    weights = p * head["density"]
    direction = unit(unit(weights @ head["anchors.f16"]) + 0.6 * unit(pooled @ head["feature_map.f16"]))
    semantic = unit(direction @ head["direction_basis.f16"] + unit(weights) @ head["class_basis.f16"])
    detail = unit(pooled @ head["detail_basis.f16"])
    np.testing.assert_allclose(joint, np.hstack([semantic, 2 * detail]) / np.sqrt(5), atol=5e-6)


def test_both_graphs_share_one_head() -> None:
    text, image = constants("text.onnx"), constants("image.onnx")
    assert np.array_equal(text["anchors_t.f16"].T, image["anchors.f16"])
    assert np.array_equal(text["basis.f16"], np.vstack([image["direction_basis.f16"], image["class_basis.f16"]]))


def test_probabilities_are_softmax_of_ten_cosines(lite: Lite) -> None:
    assert lite.logit_scale / np.sqrt(5) == pytest.approx(10)
    assert lite.logit_bias is None


def unit(rows: np.ndarray) -> np.ndarray:
    scaled: np.ndarray = rows / np.linalg.norm(rows.astype(np.float64), axis=1, keepdims=True)
    return scaled


def constants(name: str) -> dict[str, np.ndarray]:
    graph = onnx.load(FOLDER / name).graph
    small = (tensor for tensor in graph.initializer if "layer" not in tensor.name and tensor.name != "words")
    return {tensor.name: numpy_helper.to_array(tensor).astype(np.float64) for tensor in small}


def inner(value: str, texts: list[str]) -> np.ndarray:
    """An inner value of the text graph, a row for each text."""
    tokenizer = encoder._open_tokenizer()
    session = exposed(value)
    return np.concatenate([session.run([value], {"ids": [tokenizer.encode(text).ids]})[0] for text in texts])


@cache
def exposed(value: str) -> ort.InferenceSession:
    model = onnx.load(FOLDER / "text.onnx")
    model.graph.output.append(onnx.helper.make_empty_tensor_value_info(value))
    return ort.InferenceSession(model.SerializeToString())


# quality: floors on real photos; benchmarks/lite_quality.py prints the figures


@pytest.fixture(scope="module")
def quality() -> ModuleType:
    spec = importlib.util.spec_from_file_location("lite_quality", ROOT / "benchmarks" / "lite_quality.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "zero_shot", "class_means"),
    [("caltech101", 0.67, 0.93), ("clothing", 0.47, 0.73), ("cifar10", 0.45, 0.55)],
)
def test_classification_floors(
    lite: Lite, quality: ModuleType, shared_data: Path, name: str, zero_shot: float, class_means: float
) -> None:
    found = quality.classification(lite, shared_data / "classification" / name / "manifest.jsonl")
    assert found["zero-shot"] >= zero_shot
    assert found["class means, joint space"] >= class_means


def test_retrieval_floors(lite: Lite, quality: ModuleType, shared_data: Path) -> None:
    root = shared_data / "captions" / "coco"
    at_1, at_5, _ = quality.retrieval(lite, root, quality.read(root / "pairs.jsonl"))
    assert at_1 >= 0.26
    assert at_5 >= 0.62


def test_raw_web_texts_give_unit_rows(lite: Lite, shared_data: Path) -> None:
    lines = (shared_data / "alttext" / "web_alt_raw.jsonl").read_text(encoding="utf-8").splitlines()[:60]
    rows = lite.encode_texts([json.loads(line)["text"] for line in lines])
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-6)
