"""What each curation method drops of a pool whose faults are known: icons with swapped captions and copies.

    python benchmarks/noise.py ../shared/data
    python benchmarks/noise.py ../shared/data --subsets DIR     # leave the subsets there, for training

Of DATA/icons (emoji and game icons) 40 % get the caption of another icon of the 40 %, and 20 % are there twice: half
of the copies byte for byte, half saved anew as JPEG at 48 pixels. Which, a hash of the id says. `swapped: recall` is
the part of all swapped captions that a method drops, `precision` the part of what it drops that has one, `copies:
recall` the part of all pairs of copies of which it drops one or both, `clean` the part of what goes without a fault.
The row of `prune random` is what chance does.

With --subsets there is beside each METHOD.jsonl a random subset of the same size for three seeds, and heldout.jsonl:
the icons of a tenth of the names, which are in no subset. Train on each, and compare the retrieval of heldout.jsonl.
The model is `lite`.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from common import CLIPKIT, child, scratch, table

from clipkit.stream.hashing import share

SHARE = 0.6  # of the pool that is kept
SEEDS = (0, 1, 2)

# name: the arguments of `clipkit`, which reads scored records. SIZE: of the part that is kept. HELDOUT: clean pairs.
METHODS = {
    "filter by score": ["filter", "--top-k", "SIZE", "--by", "scores.clip"],
    "dedup phash": ["dedup", "--by", "phash"],
    "dedup semantic": ["dedup", "--by", "semantic", "--eps", "0.05"],
    "prune random": ["prune", "--method", "random", "--keep", "SIZE"],
    "prune density": ["prune", "--method", "density", "--keep", "SIZE", "--k", "100"],
    "prune prototypes": ["prune", "--method", "prototypes", "--keep", "SIZE", "--k", "100"],
    "prune prototypes, easy": ["prune", "--method", "prototypes", "--which", "easy", "--keep", "SIZE", "--k", "100"],
    "prune tldr": ["prune", "--method", "tldr", "--best-by", "scores.clip", "--keep-fraction", "0.4", "--k", "100"],
    "prune image-based": [
        *("prune", "--method", "image-based", "--reference", "HELDOUT", "--keep", "SIZE"),
        *("--k", "100"),
    ],
    "balance": ["balance", "--keep-fraction", "0.6"],
    "dedup phash, filter": ["dedup", "--by", "phash", "|", "filter", "--top-k", "SIZE", "--by", "scores.clip"],
}


def icons(data: Path) -> Iterator[dict[str, Any]]:
    for name in ("emoji", "game-icons"):
        folder = data / "icons" / name
        for line in (folder / "pairs.jsonl").read_text(encoding="utf-8").splitlines():
            pair = json.loads(line)
            yield {
                "id": f"{name}/{pair['id']}",
                "image": str((folder / pair["image"]).resolve()),
                "text": pair["text"].replace("-", " "),
            }


def faulty(pairs: list[dict[str, Any]], copies: Path) -> list[dict[str, Any]]:
    """The pool: records with `fault` swapped, copied, or both; and their copies."""
    swapped = sorted((p for p in pairs if share(p["id"], 0, "swap") < 0.4), key=lambda p: share(p["id"], 0, "to"))
    texts = [pair["text"] for pair in swapped]
    for pair, text in zip(swapped, [*texts[1:], *texts[:1]], strict=True):
        pair["fault"] = ["swapped"] * (pair["text"] != text)
        pair["text"] = text
    pool = []
    for pair in pairs:
        pair.setdefault("fault", [])
        pool.append(pair)
        if share(pair["id"], 0, "copy") < 0.2:
            pair["fault"] = [*pair["fault"], "copied"]
            image = copies / (pair["id"].replace("/", "-") + ".png")
            if share(pair["id"], 0, "anew") < 0.5:
                image = image.with_suffix(".jpg")
            shutil.copyfile(pair["image"], image)  # the child makes a JPEG of it
            pool.append({**pair, "id": pair["id"] + "-copy", "image": str(image)})
    return sorted(pool, key=lambda pair: share(pair["id"], 0, "order"))


def reencode(folder: str) -> None:
    """Make real JPEGs of what is called so; a child's work, for it loads PIL."""
    from PIL import Image

    for path in Path(folder).glob("*.jpg"):
        with Image.open(path) as picture:
            flat = Image.new("RGBA", picture.size, "white")
            flat.alpha_composite(picture.convert("RGBA"))
        flat.convert("RGB").resize((48, 48)).save(path, quality=50)


def run(words: list[str], given: Path, out: Path, cache: Path) -> None:
    """A pipe of clipkit's verbs, from a file to a file."""
    env = {**os.environ, "CLIPKIT_CACHE": str(cache)}
    pieces = " ".join(words).split(" | ")
    data = given.read_bytes()
    for piece in pieces:
        done = subprocess.run([*CLIPKIT, *piece.split(), "-q"], input=data, env=env, stdout=subprocess.PIPE, check=True)
        data = done.stdout
    out.write_bytes(data)


def judged(pool: dict[str, list[str]], kept: set[str]) -> list[str]:
    """size, and the parts of faults that went: of swapped captions, of pairs of copies; of what went the clean part."""
    gone = pool.keys() - kept
    swapped = [name for name, fault in pool.items() if "swapped" in fault]
    pairs = [name for name in pool if name.endswith("-copy")]
    broken = sum(name in gone or name.removesuffix("-copy") in gone for name in pairs)
    clean = sum(not pool[name] for name in gone)
    return [
        f"{len(kept):,}",
        f"{sum(name in gone for name in swapped) / len(swapped):.3f}",
        f"{sum(name in gone for name in swapped) / max(len(gone), 1):.3f}",
        f"{broken / len(pairs):.3f}",
        f"{clean / max(len(gone), 1):.3f}",
    ]


def names(path: Path) -> set[str]:
    return {json.loads(line)["id"] for line in path.read_bytes().splitlines()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--subsets", type=Path, help="leave the subsets here")
    a = parser.parse_args()
    with scratch() as folder:
        copies = folder / "copies"
        copies.mkdir()
        pairs = list(icons(a.data.resolve()))
        held = [pair for pair in pairs if share(pair["text"], 0, "heldout") < 0.1]
        pool = faulty([pair for pair in pairs if share(pair["text"], 0, "heldout") >= 0.1], copies)
        child(__file__, "reencode", copies)
        given, scored = folder / "pool.jsonl", folder / "scored.jsonl"
        given.write_text("".join(json.dumps(pair) + "\n" for pair in pool), encoding="utf-8")
        run(["score", "--by", "clip"], given, scored, folder / "cache")
        faults = {pair["id"]: pair["fault"] for pair in pool}
        size = round(SHARE * len(pool))
        out = a.subsets or folder
        out.mkdir(exist_ok=True)
        (out / "heldout.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in held), encoding="utf-8")
        counted = {kind: sum(kind in fault for fault in faults.values()) for kind in ("swapped", "copied")}
        print(
            f"{len(pool):,} records, {counted['swapped']:,} with a swapped caption, {counted['copied'] // 2:,} twice\n"
        )
        rows = []
        for name, words in METHODS.items():
            subset = out / (name.replace(",", "").replace(" ", "-") + ".jsonl")
            words = [word.replace("SIZE", str(size)).replace("HELDOUT", str(out / "heldout.jsonl")) for word in words]
            run(words, scored, subset, folder / "cache")
            kept = names(subset)
            rows.append([name, *judged(faults, kept)])
            for seed in SEEDS if a.subsets else ():
                control = subset.with_suffix(f".random-{seed}.jsonl")
                run(["sample", "--count", str(len(kept)), "--seed", str(seed)], scored, control, folder / "cache")
        table(["method", "kept", "swapped: recall", "precision", "copies: recall", "clean of what goes"], rows)


if __name__ == "__main__":
    if sys.argv[1:2] == ["reencode"]:
        print(json.dumps(reencode(sys.argv[2])))
    else:
        main()
