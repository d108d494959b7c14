"""clip and clip-flip are the cosines that open_clip's own code gives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image, ImageOps

import clipkit
from tests.methods.scorers.scoring import scores, smooth
from tests.models import tiny

TEXTS = ["a red cat", "two dogs on a sofa, seen from above", "", "x" * 400, "ein Löwe 🦁"]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for n in range(len(TEXTS)):
        smooth(n, (70 + 20 * n, 150 - 10 * n)).save(folder / f"{n}.png")
    return folder


def records() -> list[dict[str, Any]]:
    return [{"id": str(n), "image": f"{n}.png", "text": text} for n, text in enumerate(TEXTS)]


@pytest.mark.parametrize("arch", ["tiny-vit", "tiny-resnet"])
def test_they_are_the_cosines_of_open_clip(arch: str, photos: Path, tmp_path: Path) -> None:
    tiny.register(tmp_path)
    path = tiny.save(tiny.make(arch), tmp_path / "model.safetensors")
    model = open_clip.create_model(arch)
    open_clip.load_checkpoint(model, str(path))
    size = model.visual.image_size
    transform = open_clip.image_transform(size if isinstance(size, tuple) else (size, size), is_train=False)
    plain = [Image.open(photos / f"{n}.png").convert("RGB") for n in range(len(TEXTS))]
    expected = {}
    with torch.no_grad():
        texts = model.eval().encode_text(open_clip.get_tokenizer(arch)(TEXTS), normalize=True).double()
        for name, images in (("clip", plain), ("clip_flip", [ImageOps.mirror(image) for image in plain])):
            features = model.encode_image(torch.stack([transform(i) for i in images]), normalize=True).double()
            expected[name] = (features * texts).sum(dim=1).tolist()
    found = scores(records(), ["clip", "clip-flip"], photos, model=f"{arch}:{path}")
    for name, values in expected.items():
        assert [row[name] for row in found] == pytest.approx(values, abs=4e-6)
    assert max(abs(row["clip"] - row["clip_flip"]) for row in found) > 1e-4


def test_they_are_the_cosines_of_the_carried_model(photos: Path) -> None:
    lite = clipkit.load("lite")
    found = scores(records(), ["clip-flip", "clip"], photos)
    for n, row in enumerate(found):
        image = Image.open(photos / f"{n}.png").convert("RGB")
        text = lite.encode_texts([TEXTS[n]])[0].astype(float)
        for name, shown in (("clip", image), ("clip_flip", ImageOps.mirror(image))):
            feature = lite.encode_images([lite.preprocess(shown)])[0][0].astype(float)
            assert row[name] == pytest.approx(float(np.dot(feature, text)), abs=6e-7)
            assert row[name] == round(row[name], 6)
