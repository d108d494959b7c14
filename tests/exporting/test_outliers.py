"""The outlier report: figures as scipy has them, and a layer with one bad channel found first."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from scipy import stats

from clipkit.exporting.quantising import outliers


def graph(path: Path, weights: list[np.ndarray]) -> Path:
    """x [n, 8] through linear layers, one after the other."""
    names = ["x", *(f"h{i}" for i in range(len(weights) - 1)), "y"]
    nodes = [
        helper.make_node("MatMul", [given, f"w{i}"], [made], f"layer{i}")
        for i, (given, made) in enumerate(pairwise(names))
    ]
    values = [numpy_helper.from_array(weight, f"w{i}") for i, weight in enumerate(weights)]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 8]) for name in ("x", "y")]
    model = helper.make_model(
        helper.make_graph(nodes, "g", ends[:1], ends[1:], values), opset_imports=[helper.make_opsetid("", 20)]
    )
    model.ir_version = 10
    onnx.save(model, str(path))
    return path


def report(tmp_path: Path, weights: list[np.ndarray], x: np.ndarray) -> dict[str, dict[str, Any]]:
    rows = outliers.report(graph(tmp_path / "g.onnx", weights), "image", lambda: iter([x[:5], x[5:]]), tmp_path)
    return {row["layer"]: row for row in rows}


def test_figures_are_those_of_scipy(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    x = random.standard_normal((400, 8)).astype(np.float32) + 3
    x[7, 2] = 40
    weights = [random.standard_normal((8, 8)).astype(np.float32) for _ in range(2)]
    rows = report(tmp_path, weights, x)
    for name, values in (("layer0", x), ("layer1", x @ weights[0])):
        row, flat = rows[name], values.astype(np.float64).ravel()
        far = np.abs(values - flat.mean()) > 6 * flat.std()
        assert row["kurtosis"] == pytest.approx(stats.kurtosis(flat, fisher=False), rel=1e-4)
        assert row["max"] == pytest.approx(np.abs(flat).max(), rel=1e-4)
        assert (row["mean"], row["std"]) == pytest.approx((flat.mean(), flat.std()), rel=1e-4)
        assert (row["outliers"], row["channels"]) == (far.sum(), far.any(axis=0).sum())
        assert row["steps"] == pytest.approx(255 * flat.std() / (max(flat.max(), 0) - min(flat.min(), 0)), rel=1e-4)
    assert rows["layer0"]["outliers"] == 1


def test_a_layer_with_one_large_channel_comes_first(tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    weights = [np.eye(8, dtype=np.float32) for _ in range(3)]
    weights[1][3, 3] = 500
    x = random.standard_normal((300, 8)).astype(np.float32)
    x[:, 3] *= (random.random(300) < 0.03).astype(np.float32)
    rows = report(tmp_path, weights, x)
    assert next(iter(rows)) == "layer2"
    assert rows["layer2"]["channels"] == 1
    assert rows["layer2"]["outliers"] > 0
    assert rows["layer2"]["steps"] < outliers.FEW_STEPS < rows["layer1"]["steps"]
    assert rows["layer0"]["outliers"] == 0


def test_weights_without_an_error_have_no_ratio(tmp_path: Path) -> None:
    exact = np.full((8, 8), 0.5, np.float32)
    rough = np.random.default_rng(2).standard_normal((8, 8)).astype(np.float32)
    rows = report(tmp_path, [exact, rough], np.ones((6, 8), np.float32))
    assert rows["layer0"]["weights_sqnr"] is None
    assert 35 < rows["layer1"]["weights_sqnr"] < 60
