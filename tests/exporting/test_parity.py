"""The figures of a parity report are what they say, worked out here in another way, and the gates hold them."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from clipkit.exporting import parity, shown
from clipkit.exporting.measuring import Measured
from clipkit.exporting.parity import failures, figures, wilson


def unit(rows: int, width: int, seed: int) -> np.ndarray:
    values = np.random.default_rng(seed).standard_normal((rows, width))
    return (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float32)


def measured(image: np.ndarray | None, text: np.ndarray | None, scale: float = 100.0, **more: Any) -> Measured:
    rows = {name: value for name, value in (("image", image), ("text", text)) if value is not None}
    return Measured(rows, {}, "digest", scale, more.get("bias"))


def near(rows: np.ndarray, by: float, seed: int) -> np.ndarray:
    return rows + np.float32(by) * np.random.default_rng(seed).standard_normal(rows.shape).astype(np.float32)


def report(found: dict[str, Any], cosine: float = 0.9999, agreement: float = 0.99) -> dict[str, Any]:
    return {"figures": found, "limits": {"cosine": cosine, "agreement": agreement}}


def test_an_export_is_true_to_itself() -> None:
    one = measured(unit(30, 16, 0), unit(50, 16, 1))
    found = figures(one, one)
    for tower in ("image", "text"):
        assert found[tower] == {"cosine_min": 1.0, "cosine_mean": 1.0, "largest_difference": 0.0}
    assert (found["agreement"]["value"], found["agreement"]["n"]) == (1.0, 30)
    assert found["recall"] == {"k": 10, "texts": 1.0, "pictures": 1.0}
    assert failures(report(found, 1.0, 1.0)) == []


@given(st.integers(0, 10_000), st.sampled_from([1e-4, 0.01, 0.1, 1.0]), st.integers(1, 14), st.integers(1, 25))
def test_figures_are_what_they_say(seed: int, by: float, pictures: int, texts: int) -> None:
    before = measured(unit(pictures, 8, seed), unit(texts, 8, seed + 1))
    after = measured(near(before.rows["image"], by, seed + 2), near(before.rows["text"], by, seed + 3))
    found = figures(before, after)
    images = [
        float(np.dot(a, b) / np.linalg.norm(a) / np.linalg.norm(b))
        for a, b in zip(before.rows["image"], after.rows["image"], strict=True)
    ]
    assert found["image"]["cosine_min"] == pytest.approx(min(images), abs=1e-6)
    assert found["image"]["cosine_mean"] == pytest.approx(np.mean(images), abs=1e-6)
    was, now = (m.rows["image"].astype(float) @ m.rows["text"].astype(float).T for m in (before, after))
    same = [int(np.argmax(a) == np.argmax(b)) for a, b in zip(was, now, strict=True)]  # noise has no ties
    assert found["agreement"]["value"] == pytest.approx(np.mean(same))
    k = min(10, texts)
    shared = [len(set(np.argsort(-a)[:k]) & set(np.argsort(-b)[:k])) / k for a, b in zip(was, now, strict=True)]
    assert found["recall"]["texts"] == pytest.approx(np.mean(shared))


def test_ties_are_one_answer() -> None:
    """Two texts that say the same, and an export whose last bit prefers the other one."""
    texts = np.stack([unit(1, 8, 1)[0]] * 2)
    pictures = unit(5, 8, 0)
    moved = texts.copy()
    moved[1] *= np.float32(1 + 2e-7)
    moved[0] *= np.float32(1 - 2e-7)
    for swapped in (moved, moved[::-1]):
        found = figures(measured(pictures, texts), measured(pictures, swapped))
        assert found["agreement"]["value"] == 1.0
        assert found["recall"]["texts"] == 1.0


def test_another_answer_is_told() -> None:
    pictures, texts = np.eye(4, dtype=np.float32), np.eye(4, dtype=np.float32)
    turned = texts[[1, 0, 2, 3]]
    found = figures(measured(pictures, texts), measured(pictures, turned))
    assert found["agreement"]["value"] == 0.5
    assert failures(report(found, -1.0)) == ["the agreement is 0.5 of 4 pictures, below 0.99"]
    assert failures(report(found, -1.0, 0.5)) == []


def test_a_limit_is_told_as_it_was_given() -> None:
    rows = unit(5, 8, 0)
    found = figures(measured(rows, rows), measured(rows, rows))
    found["image"]["cosine_min"] = 0.99999985
    assert failures(report(found, 0.9999999)) == ["the least cosine of image features is 0.99999985, below 0.9999999"]
    said = io.StringIO()
    samples = {"name": "photos", "pictures": 5, "texts": 5}
    shown.tables({**report(found, 0.9999999, 1.0), "samples": samples, "costs": {}}, said)
    rows_of = {line.split("  ")[0]: line.split() for line in said.getvalue().splitlines() if line}
    assert rows_of["cosine of pictures, least"][-2:] == ["0.99999985", "0.9999999"]
    assert rows_of["same first answer (0.566 to 1.000)"][-1] == "1"


@pytest.mark.parametrize(("right", "n"), [(48, 48), (47, 48), (0, 7), (1, 1), (130, 256)])
def test_the_interval_is_wilsons(right: int, n: int) -> None:
    own = binomtest(right, n).proportion_ci(method="wilson")
    assert wilson(right / n, n) == pytest.approx((own.low, own.high), abs=1e-12)


def test_one_tower_stands_beside_the_sources_other() -> None:
    before = measured(unit(20, 8, 0), unit(30, 8, 1))
    found = figures(before, measured(before.rows["image"], None))
    assert "text" not in found and found["agreement"]["value"] == 1.0 and found["recall"]["pictures"] == 1.0
    broken = figures(before, measured(-before.rows["image"], None))
    assert broken["agreement"]["value"] == 0.0


def test_one_tower_without_another_has_neighbours() -> None:
    rows = unit(20, 8, 0)
    found = figures(measured(rows, None), measured(rows, None))
    assert "agreement" not in found and found["neighbours"] == {"k": 10, "image": 1.0}
    other = figures(measured(rows, None), measured(unit(20, 8, 9), None))
    assert other["neighbours"]["image"] < 0.9


def test_answers_are_compared_by_their_first() -> None:
    before = measured(np.array([[0.9, 0.1], [0.4, 0.6], [0.5, 0.5]], np.float32), None)
    after = measured(np.array([[0.8, 0.2], [0.6, 0.4], [0.4, 0.6]], np.float32), None)
    found = figures(before, after, answers=True)
    assert found["agreement"]["value"] == pytest.approx(2 / 3)
    assert found.keys() == {"probabilities", "agreement"}, "no features: words about pictures and texts would be untrue"
    assert found["probabilities"]["largest_difference"] == pytest.approx(0.2)
    (told, other) = failures(report(found))
    assert told.startswith("the least cosine of probabilities is 0.9") and "agreement" in other


@pytest.mark.parametrize("value", [np.nan, np.inf, 0.0])
def test_what_is_no_number_is_not_true(value: float) -> None:
    rows = unit(5, 8, 0)
    spoilt = rows.copy()
    spoilt[3] = value
    found = figures(measured(rows, rows), measured(spoilt, rows))
    (told, *_) = failures(report(found))
    assert told == "the least cosine of image features is -1, below 0.9999"


@pytest.mark.parametrize(
    ("scale", "bias", "told"),
    [
        (100.0, -10.0, []),
        (100.0 * (1 + 1e-7), -10.0, []),
        (4.6, -10.0, ["the logit scale is 4.6, not 100.0"]),  # its logarithm
        (100.0, None, ["the logit bias is None, not -10.0"]),
        (100.0, 10.0, ["the logit bias is 10.0, not -10.0"]),
    ],
)
def test_scale_and_bias_must_have_travelled(scale: float, bias: float | None, told: list[str]) -> None:
    rows = unit(5, 8, 0)
    found = figures(measured(rows, rows, bias=-10.0), measured(rows, rows, scale, bias=bias))
    assert failures(report(found)) == told


def test_a_limit_of_one_can_be_met_in_f32() -> None:
    """The last bits of f32 are not what a limit of 1 is about; the seventh digit is."""
    rows = unit(40, 512, 0)
    assert failures(report(figures(measured(rows, rows), measured(near(rows, 1e-8, 3), rows)), 1.0, 1.0)) == []
    assert failures(report(figures(measured(rows, rows), measured(near(rows, 1e-4, 3), rows)), 1.0, 1.0))


def test_ratios_of_costs_are_after_over_before() -> None:
    before = Measured({}, {"load_s": 3.0, "image_ms": 20.0, "memory_mb": 800.0}, "a", 1.0, None)
    after = Measured({}, {"load_s": 0.3, "image_ms": 10.0}, "b", 1.0, None)
    found = parity._costs(before, after, 400_000_000, 100_000_000)
    assert found["bytes"] == {"old": 400_000_000, "new": 100_000_000, "ratio": 0.25}
    assert found["load_s"] == {"old": 3.0, "new": 0.3, "ratio": 0.1}
    assert found["image_ms"]["ratio"] == 0.5
    assert "memory_mb" not in found
