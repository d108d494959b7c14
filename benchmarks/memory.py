"""Peak memory of a verb over N records and over ten times as many: it should not depend on N.

    python benchmarks/memory.py [IMAGES] [LINES]

zeroshot and embed at IMAGES (2000) and ten times as many pictures, each a file of its own bytes (so that a cache grows
with them) but small, read from a JSONL manifest; cat and set at LINES (20000) and ten times as many lines. Whole
processes, one run each.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from common import CLIPKIT, MB, child, facts, run, scratch, table
from lines import write_lines

SIZE = (96, 96)
PICTURES = 50  # different ones; the files differ in what follows the end of the picture
LIMIT = 1.10


def main() -> None:
    images, lines = (int(word) for word in (sys.argv[1:] + ["2000", "20000"][len(sys.argv) - 1 :]))
    print(facts("onnxruntime", "pyarrow"), end="\n\n")
    with scratch() as folder:
        child("benchmarks/photos.py", folder / "pictures", PICTURES, *SIZE)
        manifests = {count: manifest(folder, count) for count in (images, 10 * images)}
        texts = {count: write_lines(folder / f"{count}-lines.jsonl", count) for count in (lines, 10 * lines)}
        ask = ["zeroshot", "--labels", "cats,dogs"]
        rows = [
            compared("zeroshot, to stdout, no cache", folder, manifests, [*ask, "--no-cache"]),
            compared("zeroshot, to a file, with the cache", folder, manifests, ask, out="out.jsonl"),
            compared("embed, to a store, no cache", folder, manifests, ["embed", "--no-cache"], out="store"),
            compared("embed, to a store, with the cache", folder, manifests, ["embed"], out="store"),
            compared("cat", folder, texts, ["cat"]),
            compared("set", folder, texts, ["set", "--value", "split=train", "--drop", "url"]),
        ]
    table(["verb", "records", "peak memory", "ten times the records", "peak memory", "ratio"], rows)
    print(f"Limit: {LIMIT:.2f} times.")


def manifest(folder: Path, count: int) -> Path:
    """COUNT files and a line for each."""
    pictures = [path.read_bytes() for path in sorted((folder / "pictures").iterdir())]
    place = folder / str(count)
    place.mkdir()
    with open(folder / f"{count}.jsonl", "w") as file:
        for number in range(count):
            path = place / f"{number}.jpg"
            path.write_bytes(pictures[number % PICTURES] + number.to_bytes(4, "big"))
            file.write(json.dumps({"id": f"n{number}", "image": str(path)}) + "\n")
    return folder / f"{count}.jsonl"


def compared(name: str, folder: Path, inputs: dict[int, Path], verb: Sequence[str], out: str = "") -> list[str]:
    """A row: the peaks at both sizes, each with a cache of its own."""
    peaks = []
    for path in inputs.values():
        cache = folder / "cache"
        where = ["-o", str(folder / out)] if out else []
        peaks.append(run([*CLIPKIT, *verb, str(path), *where], cache=cache).peak)
        shutil.rmtree(cache, ignore_errors=True)
    small, large = inputs
    ratio = f"{peaks[1] / peaks[0]:.2f}"
    return [name, f"{small:,}", f"{peaks[0] / MB:.0f} MB", f"{large:,}", f"{peaks[1] / MB:.0f} MB", ratio]


if __name__ == "__main__":
    main()
