"""Decoding large JPEGs: clipkit's reduced path against plain Pillow, and what it costs in the embedding.

Example:

    python benchmarks/decode.py --photos ~/Pictures

Speed: CPU time of one thread, the best of several rounds, both sides in the same run. Plain Pillow is `Image.open`,
`convert("RGB")`, `resize` (bicubic, antialiased); "no copy" leaves out the convert, which copies an RGB image.
clipkit's side also crops and normalises to the model's f32 input. Photos of --photos are scaled to exactly 2 and 12
megapixels, up by at most 2; without it, photos of ../shared/data are tiled at their own resolution, which makes files
as heavy as JPEGs get. All are encoded at quality 90, 4:2:0. Cosine: of the embeddings after reduced and exact decoding;
and, for comparison, after exact decoding with and without random noise as large as the difference between those two.
"""

from __future__ import annotations

import argparse
import io
import itertools
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from clipkit.images.decode import decode, probe
from clipkit.images.transform import apply, fit
from clipkit.models.base import Preprocess
from clipkit.models.load import load

SIZES = {"2 MP": (1632, 1224), "2 MP (1080p)": (1920, 1080), "12 MP": (4032, 3024)}
DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
CLIP = Preprocess((224, 224), (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, help="a folder of large photos")
    parser.add_argument("--count", type=int, default=12, help="photos of each size")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--progressive", action="store_true")
    args = parser.parse_args()
    embedders = {"lite": lite(), "ViT-B-32 (random)": random_clip()}
    heads = [head for name in embedders for head in (name, f"{name}, noise of that size")]
    print("| size | MB | Pillow ms | clipkit ms | ratio, median (worst) | no copy | " + " | ".join(heads) + " |")
    print("|---|---|---|---|---|---|" + "---|" * len(heads))
    for name, size in SIZES.items():
        photos = itertools.islice(large(args.photos, size) if args.photos else mosaics(size), args.count)
        report(name, [encode(photo, args.progressive) for photo in photos], args.rounds, embedders)


def report(name: str, files: list[bytes], rounds: int, embedders: dict[str, Embedder]) -> None:
    """One row: milliseconds and ratios over the files, and the worst and mean cosine of each model."""
    times = np.array(
        [fastest(rounds, lambda d=d: pillow(d), lambda d=d: clipkit(d), lambda d=d: no_copy(d)) for d in files]
    )
    ratio = times[:, 0] / times[:, 1]
    bare = times[:, 2] / times[:, 1]
    cells = [name, f"{np.mean([len(data) for data in files]) / 1e6:.1f}"]
    cells += [f"{1e3 * np.median(times[:, 0]):.1f}", f"{1e3 * np.median(times[:, 1]):.1f}"]
    cells += [f"{np.median(ratio):.1f} ({ratio.min():.1f})", f"{np.median(bare):.1f} ({bare.min():.1f})"]
    for preprocess, embed in embedders.values():
        exact = np.stack([apply(preprocess, decode(data)) for data in files])
        reduced = np.stack([apply(preprocess, decode(data, fit=fit(preprocess))) for data in files])
        spread = np.sqrt(((reduced - exact) ** 2).mean((1, 2, 3), keepdims=True))
        noisy = exact + np.random.default_rng(0).normal(0, 1, exact.shape).astype(np.float32) * spread
        truth = embed(exact)
        for other in (reduced, noisy):
            cosines = (truth * embed(other)).sum(1)
            cells.append(f"min {cosines.min():.5f}, mean {cosines.mean():.5f}")
    print("| " + " | ".join(cells) + " |", flush=True)


def pillow(data: bytes) -> None:
    image = Image.open(io.BytesIO(data)).convert("RGB")
    image.resize(short_side(image.size, 224), Image.Resampling.BICUBIC)


def no_copy(data: bytes) -> None:
    image = Image.open(io.BytesIO(data))
    image.resize(short_side(image.size, 224), Image.Resampling.BICUBIC)


def clipkit(data: bytes) -> None:
    apply(CLIP, decode(data, fit=fit(CLIP)))


def short_side(size: tuple[int, int], short: int) -> tuple[int, int]:
    width, height = size
    return (short, short * height // width) if width <= height else (short * width // height, short)


def fastest(rounds: int, *jobs: Callable[[], None]) -> list[float]:
    """The least CPU seconds of each job, their runs interleaved."""
    best = [float("inf")] * len(jobs)
    for _ in range(rounds):
        for index, job in enumerate(jobs):
            started = time.process_time()
            job()
            best[index] = min(best[index], time.process_time() - started)
    return best


def encode(photo: Image.Image, progressive: bool) -> bytes:
    buffer = io.BytesIO()
    photo.save(buffer, "JPEG", quality=90, subsampling="4:2:0", progressive=progressive)
    return buffer.getvalue()


def large(folder: Path, size: tuple[int, int]) -> Iterator[Image.Image]:
    """The photos of a folder that are large enough, the largest part of each with the wanted shape, scaled to size."""
    width, height = size
    for path in sorted(folder.rglob("*.jp*g")):
        data = path.read_bytes()
        found = probe(data)
        zoom = min(found.width / width, found.height / height)
        if zoom >= 0.5:
            yield decode(data).resize(size, Image.Resampling.LANCZOS, box=(0, 0, width * zoom, height * zoom))


def mosaics(size: tuple[int, int]) -> Iterator[Image.Image]:
    """Photos side by side at their own resolution, other ones in every mosaic."""
    folders = [DATA / "neardup" / "imagededup" / "base_images", DATA / "captions" / "coco" / "img"]
    paths = itertools.cycle([path for folder in folders for path in sorted(folder.glob("*.jpg"))])
    while True:
        canvas = Image.new("RGB", size)
        top = 0
        while top < size[1]:
            left, row = 0, 0
            while left < size[0]:
                tile = decode(next(paths).read_bytes())
                canvas.paste(tile, (left, top))
                left, row = left + tile.width, tile.height if not row else min(row, tile.height)
            top += row
        yield canvas


Embedder = tuple[Preprocess, Callable[[np.ndarray], np.ndarray]]


def lite() -> Embedder:
    encoder = load("lite")
    return encoder.identity.preprocess, lambda batch: encoder.encode_images(batch)[0]


def random_clip() -> Embedder:
    """ViT-B-32 of random weights, for want of trained ones that can be had without a network."""
    import open_clip
    import torch

    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = open_clip.create_model("ViT-B-32", pretrained=None).eval()

    def embed(batch: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return model.encode_image(torch.from_numpy(batch), normalize=True).numpy()

    return CLIP, embed


if __name__ == "__main__":
    main()
