"""score --by quality against cleanvision: pictures a second, and the ratio, with the largest difference of scores.

Example:

    python benchmarks/quality.py --photos ~/Pictures --count 200

CPU time of one thread, in one process, the files in turns, the best of several rounds. Both sides read bytes from
memory: "whole" decodes and measures; "measured" is without decoding. cleanvision's side is what its Imagelab does for
each picture and the same six issues, without its data frames. Without --photos, the COCO photos of ../shared/data, and
the same scaled up to 2 and 12 megapixels.
"""

from __future__ import annotations

import argparse
import io
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np
from common import DATA, facts, table
from PIL import Image

from clipkit.images.decode import decode
from clipkit.methods import SCORERS
from clipkit.methods.scorers.base import Sample
from clipkit.stream.record import Record

ISSUES = ("dark", "light", "blurry", "low_information", "odd_aspect_ratio", "grayscale")
SIZES = {"2 MP": (1632, 1224), "12 MP": (4032, 3024)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, help="a folder of photos")
    parser.add_argument("--count", type=int, default=100, help="photos; of large ones a tenth")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    print(facts("pillow", "numpy", "cleanvision"), end="\n\n")
    rows = [row(name, files, args.rounds) for name, files in collections(args.photos, args.count)]
    header = ["photos", "clipkit/s", "cleanvision/s", "ratio, whole", "ratio, measured", "largest difference"]
    table(header, rows)


def collections(photos: Path | None, count: int) -> Iterator[tuple[str, list[bytes]]]:
    """Name and encoded files."""
    folder = photos or DATA / "captions" / "coco"
    paths = [path for path in sorted(folder.rglob("*")) if path.suffix.lower() in (".jpg", ".jpeg", ".png")]
    files = [path.read_bytes() for path in paths[:count]]
    yield f"{len(files)} of {folder.name}", files
    if photos is None:
        for name, size in SIZES.items():
            yield name, [scaled(data, size) for data in files[: max(count // 10, 1)]]


def scaled(data: bytes, size: tuple[int, int]) -> bytes:
    buffer = io.BytesIO()
    decode(data).resize(size).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def row(name: str, files: list[bytes], rounds: int) -> list[str]:
    ours, theirs = clipkit(), cleanvision()
    images = [decode(data) for data in files]
    whole = fastest(rounds, [lambda i=i: ours(files[i], decode(files[i])) for i in range(len(files))])
    measured = fastest(rounds, [lambda i=i: ours(files[i], images[i]) for i in range(len(files))])
    their_whole = fastest(rounds, [lambda i=i: theirs(opened(files[i])) for i in range(len(files))])
    their_measured = fastest(rounds, [lambda i=i: theirs(images[i]) for i in range(len(files))])
    difference = max(distance(ours(data, decode(data)), theirs(opened(data))) for data in files)
    speeds = [f"{len(files) / seconds:,.0f}" for seconds in (whole, their_whole)]
    ratios = [f"{their_whole / whole:.2f}", f"{their_measured / measured:.2f}"]
    return [name, *speeds, *ratios, f"{difference:.1e}"]


def fastest(rounds: int, calls: list[Callable[[], Any]]) -> float:
    """CPU seconds of all calls, each at its best."""
    best = [float("inf")] * len(calls)
    for _ in range(rounds):
        for number, call in enumerate(calls):
            begun = process_time()
            call()
            best[number] = min(best[number], process_time() - begun)
    return sum(best)


def clipkit() -> Callable[[bytes, Image.Image], dict[str, float]]:
    scorer = SCORERS.get("quality")({})
    record = Record({})
    return lambda data, image: scorer.look(Sample(record, data=data, pixels=image))


def opened(data: bytes) -> Image.Image:
    """As cleanvision opens a file."""
    return Image.open(io.BytesIO(data)).copy()


def cleanvision() -> Callable[[Image.Image], dict[str, Any]]:
    """What it computes for one picture (`compute_scores`); light shares the percentiles of dark."""
    from cleanvision.issue_managers.image_property_issue_manager import ImagePropertyIssueManager

    properties = ImagePropertyIssueManager().image_properties

    def measure(image: Image.Image) -> dict[str, Any]:
        raw: dict[str, Any] = {}
        for issue in ISSUES:
            if issue != "light":
                raw |= properties[issue].calculate(image)
        return raw

    return measure


def distance(ours: dict[str, float], raw: dict[str, Any]) -> float:
    """The largest difference of the scores; theirs follow from the raw values as in `get_scores`."""
    peaks = 1 - np.exp(-0.01 * raw["blurriness_grayscale_std"])
    theirs = {
        "dark": raw["brightness_perc_99"],
        "light": 1 - raw["brightness_perc_5"],
        "blurry": min(1 - np.exp(-0.01 * raw["blurriness"]) + (peaks if peaks > 0.18 else 0), 1),
        "low_information": min(0.1 * raw["entropy"], 1),
        "odd_aspect_ratio": raw["aspect_ratio"],
        "grayscale": 0 if raw["color_space"] == "L" else 1,
    }
    return max(abs(ours[f"scores.{name}"] - value) for name, value in theirs.items())


if __name__ == "__main__":
    main()
