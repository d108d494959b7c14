"""Photos to measure with: crops of the photos at hand, half of them mirrored, encoded anew at one size.

    python benchmarks/photos.py FOLDER COUNT WIDTH HEIGHT

No two files are the same. They are enlarged, so smoother than a camera's: lighter files, faster to decode. Without
../shared/data the originals are made of noise at several scales.
"""

from __future__ import annotations

import itertools
import random
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from common import DATA
from PIL import Image, ImageOps

SOURCES = ("captions/coco/img", "captions/recipes", "classification/caltech101/img", "classification/clothing/img")


def main() -> None:
    folder, (count, width, height) = Path(sys.argv[1]), map(int, sys.argv[2:])
    folder.mkdir(parents=True)
    chosen = random.Random(0)
    for number, photo in enumerate(itertools.islice(originals(), count)):
        part = cut(photo, width / height, chosen)
        part = ImageOps.mirror(part) if number % 2 else part
        part.resize((width, height), Image.Resampling.BICUBIC).save(folder / f"{number:06}.jpg", quality=90)


def originals() -> Iterator[Image.Image]:
    """Without end."""
    paths = [path for source in SOURCES for path in sorted((DATA / source).rglob("*.jpg"))]
    random.Random(0).shuffle(paths)
    for path in itertools.cycle(paths):
        yield Image.open(path).convert("RGB")
    noise = np.random.default_rng(0)
    while True:
        squares = [Image.fromarray(noise.integers(0, 256, (side, side, 3), np.uint8)) for side in (4, 16, 80)]
        layers = [np.asarray(square.resize((320, 320)), np.float32) for square in squares]
        yield Image.fromarray(np.average(layers, axis=0, weights=(4, 2, 1)).astype(np.uint8))


def cut(photo: Image.Image, aspect: float, chosen: random.Random) -> Image.Image:
    """A part with the wanted aspect, some nine tenths of the largest one, anywhere."""
    width = 0.9 * min(photo.width, photo.height * aspect)
    left = chosen.uniform(0, photo.width - width)
    top = chosen.uniform(0, photo.height - width / aspect)
    return photo.crop((round(left), round(top), round(left + width), round(top + width / aspect)))


if __name__ == "__main__":
    main()
