"""`clipkit pack`: samples a second and peak memory, against `tar` of the same files.

    python benchmarks/pack.py [PHOTOS] [ROUNDS]

PHOTOS (5000) photos of 320 x 240, made by photos.py, each with a caption. `tar` copies the files as they lie, without
looking at them, sorting them or naming them anew: the floor.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from common import CLIPKIT, MB, child, facts, middle, run, scratch, spread, table

SIZE = (320, 240)


def main() -> None:
    count, rounds = (int(word) for word in [*sys.argv[1:3], *["5000", "3"][len(sys.argv[1:3]) :]])
    print(facts(), end="\n\n")
    with scratch() as folder:
        photos, target = folder / "photos", folder / "pack"
        child("benchmarks/photos.py", photos, count, *SIZE)
        for photo in list(photos.iterdir()):
            photo.with_suffix(".txt").write_text(f"a photo called {photo.stem}")
        size = sum(path.stat().st_size for path in photos.iterdir())
        print(f"{count:,} photos, {size / MB:.0f} MB, {rounds} rounds", end="\n\n")
        commands = {
            "clipkit pack": [*CLIPKIT, "pack", str(photos), "-o", str(target)],
            "clipkit pack --to folder": [*CLIPKIT, "pack", str(photos), "-o", str(target), "--to", "folder"],
            "clipkit pack --resume, nothing new": [*CLIPKIT, "pack", str(photos), "-o", str(target), "--resume"],
            "tar": ["tar", "-cf", str(folder / "all.tar"), "-C", str(folder), "photos"],
        }
        rows = []
        for name, command in commands.items():
            found = []
            for _ in range(rounds):
                clear(target, keep="--resume" in command)
                if "--resume" in command and not target.exists():
                    run(commands["clipkit pack"])
                found.append(run(command))
            one = middle(found)
            rows.append([name, spread(found), f"{count / one.wall:,.0f}/s", f"{one.peak / MB:.0f} MB"])
    table(("", "wall", "samples", "peak memory"), rows)


def clear(target: Path, *, keep: bool) -> None:
    """Make room for a run, unless it goes on with what is there and that is of its kind."""
    if not keep or (target / "00000").exists():
        shutil.rmtree(target, ignore_errors=True)


if __name__ == "__main__":
    main()
