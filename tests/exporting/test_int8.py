"""--int8: small, near the source, each row on its own; and the traps of 8 bits."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from onnx import TensorProto, helper, numpy_helper

from clipkit.errors import ClipkitError
from clipkit.exporting.base import Wish
from clipkit.exporting.quantising import activations, layers, run, weights
from clipkit.exporting.samples import Samples
from clipkit.exporting.source import Source
from clipkit.models.load import load
from clipkit.models.sessions import open_session
from tests.exporting.conftest import Maker, pictures

LEAST = {"weights": 0.999, "dynamic": 0.99, "static": 0.97}  # static: ranges of few samples
MODES = tuple(LEAST)
X = np.random.default_rng(5).standard_normal((6, 128)).astype(np.float32)
TEXTS = ["a photo of a cat", "rain", "two boats on a lake at dawn", "", "many " * 90]


@pytest.fixture(scope="module")
def small(
    source: Callable[[str], Source], make: Maker, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str, str], Path]:
    """An 8-bit folder of a family."""
    made: dict[tuple[str, str], Path] = {}

    def of(arch: str, mode: str) -> Path:
        if (arch, mode) not in made:
            folder = tmp_path_factory.mktemp("int8") / f"{arch}-{mode}"
            written = make("onnx", source(arch), folder, int8=mode, samples=Samples(pictures(8), TEXTS, "blots"))
            assert not written.same_weights
            assert not written.row_independent
            made[arch, mode] = folder
        return made[arch, mode]

    return of


@pytest.mark.parametrize("mode", MODES)
def test_near_the_source_and_alone_as_in_a_batch(
    small: Callable[[str, str], Path], source: Callable[[str], Source], mode: str
) -> None:
    """Other families: test_matrix.py."""
    arch = "tiny-vit"
    encoder, whole = load(str(small(arch, mode))), source(arch).encoder
    pixels = np.stack([whole.preprocess(picture) for picture in pictures(5, seed=3)])
    images, texts = encoder.encode_images(pixels)[0], encoder.encode_texts(TEXTS)
    least = LEAST[mode]
    assert (images * whole.encode_images(pixels)[0]).sum(1).min() > least
    assert (texts * whole.encode_texts(TEXTS)).sum(1).min() > least
    for row in range(5):
        assert np.array_equal(encoder.encode_images(pixels[row : row + 1])[0][0], images[row])
        assert np.array_equal(encoder.encode_texts([TEXTS[row]])[0], texts[row])


@pytest.mark.parametrize("mode", MODES)
def test_small_valid_and_another_model(
    small: Callable[[str, str], Path], exported: Callable[[str], Path], mode: str
) -> None:
    folder, before = small("tiny-vit", mode), exported("tiny-vit")
    ratio = (folder / "text.onnx").stat().st_size / (before / "text.onnx").stat().st_size
    assert ratio < 0.3  # the token embedding, too
    for tower in ("image", "text"):
        onnx.checker.check_model(str(folder / f"{tower}.onnx"))
    encoder = load(str(folder))
    assert encoder.precision.startswith("int8")
    assert encoder.identity.weights != load(str(before)).identity.weights  # no cache mixes their features
    assert encoder.space != load(str(before)).space
    report = json.loads((folder / "outliers.json").read_text())
    assert {row["tower"] for row in report} == {"image", "text"}
    steps = [row["steps"] for row in report if "steps" in row]
    assert steps == sorted(steps)


def test_the_identity_is_of_the_networks_alone(source: Callable[[str], Source], make: Maker, tmp_path: Path) -> None:
    found = []
    for name, texts in (("a", ["rain"]), ("b", ["a dog", "snow"])):
        make("onnx", source("tiny-vit"), tmp_path / name, int8="weights", samples=Samples(pictures(2), texts, name))
        found.append(load(str(tmp_path / name)).identity.weights)
    assert found[0] == found[1]  # other samples look at it, and don't change it


def test_activations_by_what_comes_depend_on_neighbours(small: Callable[[str, str], Path]) -> None:
    """Why such a model runs row by row: a bright picture in the batch moves the others."""
    session = open_session(small("tiny-vit", "dynamic") / "image.onnx", 1)
    rows = np.random.default_rng(0).standard_normal((2, 3, 32, 32), dtype=np.float32)
    rows[1] *= 50
    together, alone = (session.run(["joint"], {"pixels": batch})[0][0] for batch in (rows, rows[:1]))
    assert np.abs(together - alone).max() > 1e-3


@pytest.mark.parametrize(("mode", "reader"), [("dynamic", "MatMulInteger"), ("static", "DequantizeLinear")])
def test_weights_beside_rounded_activations_have_no_sign(
    small: Callable[[str, str], Path], mode: str, reader: str
) -> None:
    """x86 without VNNI adds two products of signed weights in 16 bits: they saturate, and only there."""
    graph = onnx.load(str(small("tiny-vit", mode) / "image.onnx")).graph
    weights_of = {tensor.name: tensor for tensor in graph.initializer if len(tensor.dims) > 1}
    read = [name for node in graph.node if node.op_type == reader for name in node.input if name in weights_of]
    assert read
    assert {weights_of[name].data_type for name in read} == {TensorProto.UINT8}


def test_what_is_8_bit_is_not_quantised_again(small: Callable[[str, str], Path], tmp_path: Path) -> None:
    with pytest.raises(ClipkitError, match="int8"):
        Source(str(small("tiny-vit", "weights")), None, tmp_path).graph("image")


def test_an_exported_folder_is_quantised_without_torch(exported: Callable[[str], Path], tmp_path: Path) -> None:
    code = """
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from clipkit.exporting.base import Job, Wish
from clipkit.exporting.samples import carried
from clipkit.exporting.source import Source
from clipkit.exporting.targets.onnx import Onnx
model, scratch, folder = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
folder.mkdir()
wish = Wish(int8="weights")
Onnx(wish).write(Job(Source(model, None, scratch), wish, folder, scratch, carried, lambda line: None))
assert (folder / "image.onnx").exists()
sys.exit("torch" in sys.modules)
"""
    args = [sys.executable, "-c", code, str(exported("tiny-vit")), str(tmp_path), str(tmp_path / "out")]
    done = subprocess.run(args, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_opset_23_with_its_attention_nodes_loads(
    checkpoint: Callable[[str], Path], make: Maker, tmp_path: Path
) -> None:
    """onnxruntime's quantiser, left to itself, writes nodes for it that onnxruntime doesn't load."""
    (tmp_path / "scratch").mkdir()
    given = Source(f"tiny-vit:{checkpoint('tiny-vit')}", None, tmp_path / "scratch", 23)
    for mode in MODES:
        make("onnx", given, tmp_path / mode, int8=mode, opset=23)
        encoder = load(str(tmp_path / mode))
        assert np.isfinite(encoder.encode_texts(["a cat"])).all()
        assert np.isfinite(encoder.encode_images([encoder.preprocess(pictures(1)[0])])[0]).all()


@given(
    arrays.arrays(
        np.float32,
        st.tuples(st.integers(1, 5), st.integers(1, 200)),
        elements=st.floats(-1e6, 1e6, width=32, allow_subnormal=False),
    )
)
def test_rounding_is_within_half_a_step(weight: np.ndarray) -> None:
    rounded, scales = weights.blocks(weight)
    exact = ((rounded.astype(np.float64) - 128) * scales[..., None]).reshape(len(weight), -1)
    width = weight.shape[1]
    steps = np.repeat(scales, weights.BLOCK, axis=1)[:, :width]
    assert (np.abs(exact[:, :width] - weight) <= steps * 0.5001 + 1e-30).all()
    assert (exact[:, width:] == 0).all()  # what fills the last block


def _graph(path: Path, nodes: list[onnx.NodeProto], values: dict[str, np.ndarray], shape: list[str | int]) -> Path:
    ends = [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape), onnx.ValueInfoProto(name="y")]
    tensors = [numpy_helper.from_array(value, name) for name, value in values.items()]
    opsets = [helper.make_opsetid("", 20)]
    model = helper.make_model(helper.make_graph(nodes, "g", ends[:1], ends[1:], tensors), opset_imports=opsets)
    model.ir_version = 10
    onnx.save(model, str(path))
    return path


def test_weights_behind_transposes_casts_and_names_are_found(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    weight, bias = random.standard_normal((24, 100)), random.standard_normal(24)
    nodes = [
        helper.make_node("Identity", ["w"], ["again"]),
        helper.make_node("Cast", ["again"], ["exact"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["exact"], ["flipped"], perm=[1, 0]),
        helper.make_node("Gemm", ["x", "flipped", "b"], ["left"]),
        helper.make_node("Gemm", ["x", "exact", "b"], ["right"], transB=1),
        helper.make_node("Sub", ["left", "right"], ["y"]),
    ]
    values: dict[str, np.ndarray] = {"w": weight.astype(np.float16), "b": bias.astype(np.float32)}
    path = _graph(tmp_path / "g.onnx", nodes, values, ["n", 100])
    model = layers.load(path)
    assert [layer.weight.shape for layer in layers.layers(model)] == [(24, 100), (24, 100)]
    weights.quantise(model)
    assert [node.op_type for node in model.graph.node] == ["MatMulNBits", "Add", "MatMulNBits", "Add", "Sub"]
    onnx.save(model, str(tmp_path / "q.onnx"))
    x = random.standard_normal((3, 100)).astype(np.float32)
    assert not open_session(tmp_path / "q.onnx", 1).run(["y"], {"x": x})[0].any()


@pytest.mark.parametrize("make_graph", [activations.dynamic, lambda p, s: activations.static(p, s, iter([X]))])
def test_a_weight_that_is_read_transposed_passes_the_quantisers(
    tmp_path: Path, make_graph: Callable[[Path, Path], onnx.ModelProto]
) -> None:
    """A Gemm whose weight's shape is noted in the graph: onnxruntime turns the weight and keeps the note."""
    weight = np.random.default_rng(1).standard_normal((16, 128)).astype(np.float32)
    nodes = [helper.make_node("Gemm", ["x", "w"], ["y"], "linear", transB=1)]
    path = _graph(tmp_path / "g.onnx", nodes, {"w": weight}, ["n", 128])
    noted = onnx.load(str(path))
    noted.graph.value_info.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, [16, 128]))
    onnx.save(noted, str(path))
    onnx.save(make_graph(path, tmp_path), str(tmp_path / "q.onnx"))
    (found,) = open_session(tmp_path / "q.onnx", 1).run(["y"], {"x": X})
    np.testing.assert_allclose(found, X @ weight.T, atol=0.03 * np.abs(X @ weight.T).max())


@pytest.mark.parametrize("mode", MODES)
def test_outliers_are_told_where_activations_are_rounded(
    mode: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """outliers.json is written in any case."""
    row = {"tower": "image", "layer": "fc", "max": 90.0, "std": 1.0, "steps": 1.4, "kurtosis": 9.0}
    monkeypatch.setattr(run, "_outliers", lambda job, tower: [{**row, "outliers": 2, "channels": 1}])
    monkeypatch.setattr(run, "_quantised", lambda job, tower: tmp_path / "none.onnx")
    monkeypatch.setattr(run, "_neighbours", lambda job, tower, path: 0.0)
    told: list[str] = []
    job: Any = SimpleNamespace(wish=Wish(towers=("image",), int8=mode), folder=tmp_path, tell=told.append)
    run.quantise(job)
    assert (tmp_path / "outliers.json").is_file()
    assert ["image: fc is what 8-bit activations hurt most" in line for line in told] == [True] * (mode != "weights")
