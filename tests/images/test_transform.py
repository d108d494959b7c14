"""Preprocessing against open_clip's own, bit for bit, and from reduced pictures."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clipkit.images.decode import REDUCED, decode
from clipkit.images.transform import apply, fit
from clipkit.models.base import Preprocess

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
LEVEL = 1 / 255 / min(STD)  # one step of 8 bits, normalised
SAMPLES = Path(__file__).resolve().parents[2] / "samples"


def photo() -> Image.Image:
    return decode((SAMPLES / "cat.jpg").read_bytes())


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    levels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    return Image.fromarray(levels)


def reference(preprocess: Preprocess, image: Image.Image) -> np.ndarray:
    """open_clip's inference transform of the same description."""
    from open_clip.transform import PreprocessCfg, image_transform_v2

    config = PreprocessCfg(
        size=preprocess.size,
        mean=preprocess.mean,
        std=preprocess.std,
        interpolation=preprocess.interpolation,
        resize_mode=preprocess.resize_mode,
        fill_color=preprocess.fill,
    )
    return image_transform_v2(config, is_train=False)(image).numpy()


MODES = [
    Preprocess((224, 224), MEAN, STD),
    Preprocess((224, 224), (0.5,) * 3, (0.5,) * 3, "squash", "bilinear"),
    Preprocess((128, 128), MEAN, STD, "longest", "bicubic", 127),
    Preprocess((96, 160), MEAN, STD, "shortest", "bilinear"),
    Preprocess((96, 160), MEAN, STD, "squash"),
    Preprocess((160, 96), MEAN, STD, "longest", "bilinear", 255),
]


@pytest.mark.parametrize("preprocess", MODES)
def test_equal_to_open_clip_on_a_photo(preprocess: Preprocess) -> None:
    for image in (photo(), photo().rotate(90, expand=True), photo().resize((100, 77)), photo().resize((1800, 1300))):
        ours = apply(preprocess, image)
        assert (ours.dtype, ours.shape, ours.flags.c_contiguous) == (np.float32, (3, *preprocess.size), True)
        assert np.array_equal(ours, reference(preprocess, image))


@pytest.mark.parametrize("preprocess", MODES)
def test_equal_to_open_clip_on_random_sizes(preprocess: Preprocess) -> None:
    random = np.random.default_rng(1)
    near = [
        (width + dw, height + dh) for width, height in [preprocess.size[::-1]] for dw in (-1, 0, 1) for dh in (-1, 0, 1)
    ]
    for width, height in [*near, *random.integers(8, 500, (25, 2)).tolist(), (500, 30), (30, 500)]:
        image = noise(width, height)
        assert np.array_equal(apply(preprocess, image), reference(preprocess, image)), (width, height)


def test_equal_to_open_clip_on_real_photos(shared_data: Path) -> None:
    paths = sorted((shared_data / "captions" / "coco" / "img").glob("*.jpg"))[:20]
    assert paths
    for path in paths:
        for preprocess in MODES[:3]:
            assert np.array_equal(
                apply(preprocess, decode(path.read_bytes())), reference(preprocess, Image.open(path).convert("RGB"))
            )


def test_exact_decoding_equals_open_clip_from_the_file_on() -> None:
    from open_clip.transform import image_transform

    theirs = image_transform(224, is_train=False, mean=MEAN, std=STD)(Image.open(SAMPLES / "cat.jpg")).numpy()
    data = (SAMPLES / "cat.jpg").read_bytes()
    assert np.array_equal(apply(MODES[0], decode(data)), theirs)
    assert np.array_equal(apply(MODES[0], decode(data, fit=224)), theirs)  # 300 px: nothing to reduce


@pytest.mark.parametrize(("width", "height"), [(3, 900), (900, 3), (1, 5000), (20000, 40)])
def test_long_strips_are_not_made_whole(width: int, height: int) -> None:
    image = photo().resize((width, height))
    for preprocess in MODES[:3]:
        ours = apply(preprocess, image)
        assert ours.shape == (3, *preprocess.size)
        if preprocess.resize_mode == "shortest" and max(width, height) < 1000:
            difference = np.abs(ours - reference(preprocess, image))
            assert difference.mean() < 0.2 * LEVEL
            assert difference.max() < 5 * LEVEL


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_an_endless_strip_takes_little_memory() -> None:
    code = """
import re
from pathlib import Path
from PIL import Image
from clipkit.images.transform import apply
from clipkit.models.base import Preprocess
apply(Preprocess((224, 224), (0.5,) * 3, (0.5,) * 3), Image.new("RGB", (1, 60000)))
print(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert int(run.stdout) < 200_000


def test_resize_before_the_crop_as_classifiers_do() -> None:
    from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Normalize, Resize, ToTensor

    mean, std = (127 / 255,) * 3, (128 / 255,) * 3
    theirs = Compose([Resize(256, InterpolationMode.BICUBIC), CenterCrop(224), ToTensor(), Normalize(mean, std)])
    preprocess = Preprocess((224, 224), mean, std, resize=256)
    for image in (photo(), noise(256, 256), noise(333, 257), noise(100, 700)):
        assert np.array_equal(apply(preprocess, image), theirs(image).numpy())
    assert (fit(preprocess), fit(MODES[0]), fit(MODES[3])) == (256, 224, 160)


def test_values_by_hand() -> None:
    image = Image.new("RGB", (4, 4), (0, 255, 51))
    ours = apply(Preprocess((2, 2), (0.0, 0.5, 0.1), (1.0, 0.25, 0.1)), image)
    assert np.allclose(ours[:, 0, 0], [0.0, 2.0, 1.0], atol=1e-6)


def test_padding_has_the_colour_asked_for() -> None:
    ours = apply(Preprocess((8, 8), (0.0,) * 3, (1.0,) * 3, "longest", fill=51), Image.new("RGB", (16, 8), "white"))
    assert np.allclose(ours[:, :2], 0.2) and np.allclose(ours[:, -2:], 0.2) and np.allclose(ours[:, 2:-2], 1.0)


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
@pytest.mark.parametrize("preprocess", MODES)
def test_reduced_pictures_lie_where_the_exact_ones_do(preprocess: Preprocess, orientation: int) -> None:
    """Sizes that are no multiple of a JPEG's block: half a pixel of shift would show."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    buffer = io.BytesIO()
    smooth = photo().resize((1803, 1205), Image.Resampling.BICUBIC)
    smooth.save(buffer, "JPEG", quality=95, exif=exif)
    exact = apply(preprocess, decode(buffer.getvalue()))
    image = decode(buffer.getvalue(), fit=fit(preprocess))
    assert REDUCED in image.info
    reduced = apply(preprocess, image)
    assert np.abs(reduced - exact).mean() < 0.5 * LEVEL
    image.info.clear()
    assert np.abs(apply(preprocess, image) - exact).mean() > 0.5 * np.abs(reduced - exact).mean()


def test_a_cropped_picture_is_taken_as_it_is() -> None:
    buffer = io.BytesIO()
    photo().resize((1804, 1200)).save(buffer, "JPEG")
    image = decode(buffer.getvalue(), fit=224)
    cropped = image.crop((10, 10, 300, 290))
    assert REDUCED in cropped.info  # Pillow hands it on
    assert np.array_equal(apply(MODES[0], cropped), reference(MODES[0], cropped))


def test_torch_is_not_imported() -> None:
    code = "import sys, clipkit.images.transform, clipkit.images.opener; print('torch' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"


def test_the_package_and_the_opener_import_nothing_heavy() -> None:
    code = (
        "import sys, clipkit.images, clipkit.images.opener; print(sorted({'PIL', 'numpy', 'ssl'} & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
