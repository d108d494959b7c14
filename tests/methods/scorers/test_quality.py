"""Quality: cleanvision's own scores, and numbers where it has none."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from clipkit.errors import RecordError
from clipkit.images.decode import decode
from clipkit.methods import SCORERS
from clipkit.methods.scorers.base import Sample
from clipkit.stream.record import Record

pytestmark = pytest.mark.filterwarnings(r"ignore::Warning:PIL\..*")

NAMES = ("dark", "light", "blurry", "low_information", "odd_aspect_ratio", "grayscale")
SIZES = [(1, 1), (1, 2), (2, 1), (1, 700), (700, 1), (2, 2), (3, 3), (64, 64), (65, 64), (129, 7)]


def scored(data: bytes) -> dict[str, float]:
    scorer = SCORERS.get("quality")({})
    scorer.setup(None)
    sample = Sample(Record({}), data=data, pixels=decode(data))
    values = scorer.score(sample, scorer.look(sample))
    assert tuple(values) == scorer.outputs == tuple(f"scores.{name}" for name in NAMES)
    return {name.removeprefix("scores."): value for name, value in values.items()}


def cleanvision(files: Iterable[Path]) -> dict[str, dict[str, float]]:
    """path -> issue -> score, by the real thing."""
    from cleanvision import Imagelab

    lab = Imagelab(filepaths=[str(file) for file in files], verbose=False)
    lab.find_issues({name: {} for name in NAMES}, n_jobs=1, verbose=False)
    scores = lab.issues[[f"{name}_score" for name in NAMES]].to_dict("index")
    return {path: {name: row[f"{name}_score"] for name in NAMES} for path, row in scores.items()}


def assert_equal(files: list[Path], tolerance: float = 1e-4) -> None:
    for path, expected in cleanvision(files).items():
        assert scored(Path(path).read_bytes()) == pytest.approx(expected, abs=tolerance), path


def save(image: Image.Image, file: Path, **options: object) -> Path:
    image.save(file, **options)
    return file


def photo(width: int = 90, height: int = 60, seed: int = 0) -> Image.Image:
    """Blobs of colour with noise on them."""
    random = np.random.default_rng(seed)
    coarse = Image.fromarray(random.integers(0, 256, (5, 5, 3), np.uint8)).resize((width, height))
    grain = random.integers(-20, 20, (height, width, 3))
    return Image.fromarray(np.clip(np.asarray(coarse, int) + grain, 0, 255).astype(np.uint8))


def png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def test_all_coco_photos(shared_data: Path) -> None:
    files = sorted((shared_data / "captions" / "coco").rglob("*.jpg"))
    assert len(files) == 184
    assert_equal(files)


@pytest.mark.parametrize(
    "pattern, every",
    [
        ("classification/caltech101/**/*.jpg", 16),
        ("classification/cifar10/**/*.jpg", 25),
        ("neardup/made/*.jpg", 8),
        ("icons/game-icons/**/*.png", 40),  # gray files
    ],
)
def test_other_collections(shared_data: Path, pattern: str, every: int) -> None:
    files = sorted(shared_data.glob(pattern))[::every]
    assert len(files) > 40
    assert_equal(files)


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_tiny_thin_and_flat_pictures(tmp_path: Path, mode: str) -> None:
    pictures = [photo(*size).convert(mode) for size in SIZES]
    pictures += [Image.new("RGB", (40, 30), colour).convert(mode) for colour in ("black", "white", "gray", "navy")]
    assert_equal([save(image, tmp_path / f"{number}.png") for number, image in enumerate(pictures)])


def test_a_large_picture_is_measured_in_bands(tmp_path: Path) -> None:
    assert_equal([save(photo(1501, 997), tmp_path / "large.png")])


def test_pictures_that_cleanvision_measures_as_stored(tmp_path: Path) -> None:
    """Its scores are those of the upright RGB picture here, whatever the file holds: turned, palette, CMYK, alpha."""
    exif = Image.Exif()
    exif[0x112] = 6
    red = Image.new("RGBA", (90, 60), (255, 0, 0, 0))
    red.paste(photo(), (0, 0), Image.linear_gradient("L").resize((90, 60)))
    files = [
        save(photo(), tmp_path / "turned.jpg", exif=exif),
        save(photo().quantize(64), tmp_path / "palette.png"),
        save(photo().convert("CMYK"), tmp_path / "cmyk.tiff"),
        save(red, tmp_path / "alpha.png"),
    ]
    shown = [save(decode(file.read_bytes()), tmp_path / f"{file.stem}-shown.png") for file in files]
    for file, score in zip(files, cleanvision(shown).values(), strict=True):
        assert scored(file.read_bytes()) == pytest.approx(score, abs=1e-4), file


def test_turning_by_exif_changes_next_to_nothing(tmp_path: Path) -> None:
    """cleanvision doesn't turn: only how the small picture for blur is rounded can differ."""
    files = []
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x112] = orientation
        files.append(save(photo(300, 200), tmp_path / f"{orientation}.jpg", exif=exif))
    assert_equal(files, tolerance=5e-3)


@pytest.mark.parametrize("mode, gray", [("1", 0), ("L", 0), ("LA", 0), ("I;16", 0), ("RGB", 1), ("RGBA", 1), ("P", 1)])
def test_grayscale_is_about_the_file(mode: str, gray: int) -> None:
    """Not about the colours: a JPEG of three bands may well be without any."""
    image = photo().convert("L")
    stored = Image.fromarray(np.asarray(image, np.uint16) * 257) if mode == "I;16" else image.convert(mode)
    assert stored.mode == mode
    assert scored(png(stored))["grayscale"] == gray


def test_sixteen_bits_are_as_bright_as_eight() -> None:
    gray = photo().convert("L")
    deep = Image.fromarray(np.asarray(gray, np.uint16) * 257)
    assert scored(png(deep)) == scored(png(gray))


def test_the_default_thresholds_tell_bad_from_good() -> None:
    def issues(image: Image.Image) -> set[str]:
        limits = {"dark": 0.32, "light": 0.05, "blurry": 0.29, "low_information": 0.3, "odd_aspect_ratio": 0.35}
        values = scored(png(image))
        return {name for name, limit in limits.items() if values[name] < limit}

    good = photo(200, 150)
    assert issues(good) == set()
    assert issues(good.point(lambda value: value // 5)) == {"dark"}
    assert "light" in issues(good.point(lambda value: 245 + value // 26))
    spot = ImageOps.invert(Image.radial_gradient("L")).resize((200, 150)).convert("RGB")
    assert issues(spot) == {"blurry"}
    assert "low_information" in issues(Image.new("RGB", (200, 150), "teal"))
    assert "odd_aspect_ratio" in issues(good.crop((0, 0, 200, 40)))


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 80), st.integers(1, 80), st.integers(0, 10**6))
def test_any_picture_and_its_mirror(width: int, height: int, seed: int) -> None:
    image = photo(width, height, seed)
    values = scored(png(image))
    assert all(math.isfinite(value) and 0.0 <= value <= 1.0 for value in values.values())
    for turned in (ImageOps.mirror(image), ImageOps.flip(image), image.transpose(Image.Transpose.ROTATE_90)):
        other = scored(png(turned))
        assert {name: other[name] for name in NAMES if name != "blurry"} == {
            name: values[name] for name in NAMES if name != "blurry"
        }


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 10**6))
def test_percentiles_as_numpys(width: int, height: int, seed: int) -> None:
    image = photo(width, height, seed)
    pixels = np.asarray(image, np.float64)
    brightness = np.sqrt(pixels**2 @ [0.241, 0.691, 0.068]) / 255
    values = scored(png(image))
    assert values["dark"] == pytest.approx(np.percentile(brightness, 99), abs=1e-4)
    assert values["light"] == pytest.approx(1 - np.percentile(brightness, 5), abs=1e-4)


def test_every_odd_file_has_scores_or_a_typed_error(shared_data: Path) -> None:
    measured = 0
    for line in (shared_data / "decode" / "expected.jsonl").read_text().splitlines():
        data = (shared_data / "decode" / json.loads(line)["image"]).read_bytes()
        try:
            values = scored(data)
        except RecordError:
            continue
        measured += 1
        assert all(math.isfinite(value) and 0.0 <= value <= 1.0 for value in values.values()), line
    assert measured > 200
