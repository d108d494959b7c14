"""Text in pictures: found, measured, filled; and what that does to the score."""

from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from clipkit.images.decode import REDUCED, decode
from clipkit.methods.scorers.tmars import Detector, Text, without
from tests.methods.scorers.scoring import scored, scores, smooth

WORDS = "GRAND SUMMER SALE"


def photo(n: int, size: tuple[int, int] = (400, 300)) -> Image.Image:
    """Soft, and low in contrast: a bright blotch may pass for a letter."""
    return smooth(n, size).point(lambda level: 100 + level // 4)


def with_words(picture: Image.Image, words: str, at: tuple[int, int], size: float) -> tuple[float, float, float, float]:
    """Draw words; where they are: left, top, right, bottom."""
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(size)
    draw.text(at, words, fill="white", font=font, stroke_width=1, stroke_fill="black")
    return draw.textbbox(at, words, font=font, stroke_width=1)


@pytest.fixture(scope="module")
def detector() -> Detector:
    return Detector()


@pytest.mark.parametrize("size", [16, 24, 40])
@pytest.mark.parametrize("at", [(10, 12), (60, 150), (25, 240)])
def test_words_are_found_where_they_are(size: int, at: tuple[int, int], detector: Detector) -> None:
    for n in range(3):
        picture = photo(n, (600, 300))
        assert len(detector.find(picture).quads) == 0
        left, top, right, bottom = with_words(picture, WORDS, at, size)
        found = detector.find(picture)
        mask = np.zeros((300, 600), bool)
        for quad in found.quads:
            (x0, y0), (x1, y1) = quad.min(axis=0), quad.max(axis=0)
            mask[y0:y1, x0:x1] = True
        inside = mask[int(top) : int(bottom) + 1, int(left) : int(right) + 1]
        assert inside.mean() > 0.85, (n, size, at)
        truth = (right - left) * (bottom - top) / (600 * 300)
        assert 0.8 * truth < found.area < 2.2 * truth  # a box stands off its letters


def test_overlapping_boxes_count_once(detector: Detector) -> None:
    from clipkit.methods.scorers.tmars import _coverage

    box = np.array([[[10, 10], [49, 10], [49, 29], [10, 29]]], float)
    once = _coverage(box, (100, 100))
    assert once == pytest.approx(0.08, abs=0.002)
    moved = box + np.array([20, 0])
    assert _coverage(np.concatenate([box, box, moved]), (100, 100)) == pytest.approx(0.12, abs=0.002)


def test_filled_text_is_gone_and_the_rest_is_untouched(detector: Detector) -> None:
    clean = photo(1, (600, 300))
    picture = clean.copy()
    with_words(picture, WORDS, (60, 100), 40)
    found = detector.find(picture)
    filled = without(picture, found)
    assert len(detector.find(filled).quads) == 0
    before, after = np.asarray(picture, int), np.asarray(filled, int)
    changed = (before != after).any(axis=2)
    rows, columns = np.flatnonzero(changed.any(axis=1)), np.flatnonzero(changed.any(axis=0))
    low, high = found.quads.reshape(-1, 2).min(axis=0), found.quads.reshape(-1, 2).max(axis=0)
    assert rows.min() >= low[1] and rows.max() <= high[1] and columns.min() >= low[0] and columns.max() <= high[0]
    assert np.abs(after - np.asarray(clean, int)).mean() < np.abs(before - np.asarray(clean, int)).mean()
    assert filled.size == picture.size and picture.tobytes() != filled.tobytes()


def quads(*boxes: tuple[int, int, int, int]) -> np.ndarray:
    corners = [[(left, top), (right, top), (right, bottom), (left, bottom)] for left, top, right, bottom in boxes]
    return np.array(corners, np.int32)


def test_a_box_takes_the_mean_colour_around_it_and_no_text_of_others() -> None:
    picture = Image.new("RGB", (100, 60), (10, 20, 30))
    draw = ImageDraw.Draw(picture)
    draw.rectangle((20, 20, 59, 39), fill=(200, 0, 0))
    draw.rectangle((60, 20, 79, 39), fill=(0, 200, 0))  # text too, next to it
    filled = without(picture, Text(quads((20, 20, 59, 39), (60, 20, 79, 39)), picture.size, 0.2))
    assert filled.getcolors() == [(6000, (10, 20, 30))]


def test_a_picture_that_is_all_text_becomes_grey() -> None:
    picture = smooth(2, (50, 40))
    filled = without(picture, Text(quads((0, 0, 49, 39)), picture.size, 1.0))
    assert filled.getcolors() == [(2000, (128, 128, 128))]


def test_a_picture_decoded_at_reduced_scale_is_filled_at_the_same_place() -> None:
    picture = Image.new("RGB", (1601, 1203), (10, 200, 30))
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=95)
    reduced = decode(file.getvalue(), fit=150)
    assert REDUCED in reduced.info and reduced.width < 500
    draw = ImageDraw.Draw(reduced)
    scale = 1601 / reduced.info[REDUCED].box[2]
    draw.rectangle((100, 50, 199, 99), fill=(0, 0, 255))
    box = tuple(round(scale * x) for x in (100, 50, 199.5, 99.5))
    filled = without(reduced, Text(quads(box), (1601, 1203), 0.1))
    assert np.abs(np.asarray(filled, int) - np.asarray(picture.resize(reduced.size), int)).max() < 6
    assert filled.info == reduced.info


def test_threads_and_order_change_nothing(detector: Detector) -> None:
    pictures = []
    for n in range(6):
        pictures.append(photo(n, (300 + 40 * n, 260)))
        with_words(pictures[-1], f"No {n} {WORDS}", (20, 30 * n + 5), 18 + 3 * n)
    alone = [detector.find(picture) for picture in pictures]
    with ThreadPoolExecutor(3) as pool:
        together = list(pool.map(detector.find, pictures[::-1]))[::-1]
    for one, other in zip(alone, together, strict=True):
        assert np.array_equal(one.quads, other.quads) and one.area == other.area


def records(folder: Path, pictures: dict[str, Image.Image], text: str) -> list[dict[str, Any]]:
    for name, picture in pictures.items():
        picture.save(folder / f"{name}.png")
    return [{"id": name, "image": f"{name}.png", "text": text} for name in pictures]


def test_without_text_it_is_the_plain_score_to_the_last_bit(tmp_path: Path) -> None:
    given = records(tmp_path, {str(n): photo(n) for n in range(4)}, "soft colours")
    for row in scores(given, ["tmars", "clip"], tmp_path):
        assert row["tmars"] == row["clip"] and row["text_area"] == 0


def test_a_caption_that_quotes_the_picture_loses_more_than_one_that_describes_it(
    shared_data: Path, tmp_path: Path
) -> None:
    """With the carried model, over photos with a sign painted across them."""
    photos = sorted((shared_data / "captions/coco").rglob("*.jpg"))[:12]
    drops: dict[str, list[float]] = {}
    for caption in ("a sign that says grand summer sale", "a photo"):
        pictures = {}
        for n, path in enumerate(photos):
            pictures[str(n)] = Image.open(path).convert("RGB")
            with_words(pictures[str(n)], "GRAND\nSUMMER\nSALE", (15, 15), 48)
        rows = scores(records(tmp_path, pictures, caption), ["clip", "tmars"], tmp_path)
        assert all(row["text_area"] > 0.1 for row in rows)
        drops[caption] = [row["clip"] - row["tmars"] for row in rows]
    quoting, plain = (float(np.mean(values)) for values in drops.values())
    assert quoting > 0 and quoting > plain + 0.02


def test_via_names_the_detector_and_the_model_and_area_the_detector_alone(tmp_path: Path) -> None:
    (record,) = scored(records(tmp_path, {"a": photo(0)}, "x"), ["tmars"], tmp_path)
    area, score = record["via"]["scores.text_area"], record["via"]["scores.tmars"]
    assert area.startswith("tmars@") and score.startswith(f"{area}/lite@")
