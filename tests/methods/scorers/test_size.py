"""Sizes as the header says, after EXIF orientation."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from clipkit.errors import RecordError
from clipkit.images.decode import decode
from clipkit.methods import SCORERS
from clipkit.methods.scorers.base import Sample
from clipkit.stream.record import Record

pytestmark = pytest.mark.filterwarnings(r"ignore::Warning:PIL\..*")


def scored(name: str, data: bytes) -> dict[str, Any]:
    scorer = SCORERS.get(name)({})
    scorer.setup(None)
    sample = Sample(Record({}), data=data)
    values = scorer.score(sample, scorer.look(sample))
    assert tuple(values) == scorer.outputs
    return values


def png(width: int, height: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), (200, 30, 40)).save(buffer, "PNG")
    return buffer.getvalue()


def test_size() -> None:
    data = png(60, 20)
    assert scored("size", data) == {"width": 60, "height": 20, "bytes": len(data)}


@pytest.mark.parametrize("size, aspect", [((60, 20), 3.0), ((20, 60), 3.0), ((7, 7), 1.0), ((1, 500), 500.0)])
def test_aspect_is_at_least_one(size: tuple[int, int], aspect: float) -> None:
    assert scored("aspect", png(*size)) == {"scores.aspect": aspect}


def test_aspect_is_rounded() -> None:
    assert scored("aspect", png(10, 3)) == {"scores.aspect": 3.333333}


@pytest.mark.parametrize("orientation", range(1, 9))
def test_size_is_of_the_upright_picture(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x112] = orientation
    buffer = io.BytesIO()
    Image.new("RGB", (60, 20)).save(buffer, "JPEG", exif=exif)
    values = scored("size", buffer.getvalue())
    assert (values["width"], values["height"]) == ((20, 60) if orientation >= 5 else (60, 20))


@pytest.mark.parametrize(
    "data, kind", [(b"", "image-empty"), (b"<html>", "image-format"), (png(9, 9)[:20], "image-broken")]
)
def test_what_is_no_image(data: bytes, kind: str) -> None:
    for name in ("size", "aspect"):
        with pytest.raises(RecordError) as caught:
            scored(name, data)
        assert caught.value.kind == kind


def test_every_odd_file_has_a_size_or_a_typed_error(shared_data: Path) -> None:
    """As the decoded picture, wherever it decodes."""
    checked = 0
    for line in (shared_data / "decode" / "expected.jsonl").read_text().splitlines():
        data = (shared_data / "decode" / json.loads(line)["image"]).read_bytes()
        try:
            width, height = decode(data).size
        except RecordError:
            continue
        checked += 1
        assert scored("size", data) == {"width": width, "height": height, "bytes": len(data)}
        assert scored("aspect", data)["scores.aspect"] == round(max(width, height) / min(width, height), 6)
    assert checked > 200
