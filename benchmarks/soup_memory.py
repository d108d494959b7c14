"""Peak memory of mixing models, however many: that of two models is the promise.

    python benchmarks/soup_memory.py [--arch ViT-B-32] [--counts 2,8,16]

Random models of an architecture, f32, as .safetensors and by torch.save; `clipkit soup uniform` over so many of them,
beside loading one and two of them at once with clipkit, each in a fresh process. Files that are mapped into memory
count where they are resident. The models need the disk: ViT-B-32 takes 0.6 GB each.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

from common import CLIPKIT, MB, facts, run, scratch, table

SUFFIXES = ("safetensors", "pt")


def main() -> None:
    parser = argparse.ArgumentParser(description="Peak memory of mixing models.")
    parser.add_argument("--arch", default="ViT-B-32")
    parser.add_argument("--counts", default="2,8,16")
    parser.add_argument("--make", help=argparse.SUPPRESS)  # what processes of their own do
    parser.add_argument("--load", nargs="+", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    counts = [int(count) for count in asked.counts.split(",")]
    if asked.make:
        make(asked.arch, Path(asked.make), max(counts))
        return
    if asked.load:
        load(asked.load)
        return
    print(facts("torch", "open_clip_torch", "safetensors"), end="\n\n")
    with scratch() as folder:
        again = [sys.executable, __file__, "--arch", asked.arch, "--counts", asked.counts]
        run([*again, "--make", str(folder)])
        size = (folder / f"0.{SUFFIXES[0]}").stat().st_size
        print(f"{asked.arch}: {size / MB:,.0f} MB a model\n")
        first = [f"{asked.arch}:{folder / f'{number}.{SUFFIXES[0]}'}" for number in range(2)]
        rows = [row(f"load {len(names)}", [*again, "--load", *names]) for names in (first[:1], first)]
        for suffix in SUFFIXES:
            names = [f"{asked.arch}:{folder / f'{number}.{suffix}'}" for number in range(max(counts))]
            for count in counts:
                mix = [*CLIPKIT, "soup", "uniform", "-q", *names[:count], "-o", str(folder / "soup")]
                rows.append(row(f"mix {count} (.{suffix})", mix))
                shutil.rmtree(folder / "soup")
    table(["", "time", "peak memory"], rows)


def row(what: str, command: list[str]) -> list[str]:
    """Of one process."""
    taken = run(command)
    return [what, f"{taken.wall:.1f} s", f"{taken.peak / MB:,.0f} MB"]


def make(arch: str, folder: Path, count: int) -> None:
    """Random models, each in both formats."""
    import torch
    from safetensors.torch import save_file

    from clipkit.models.open_clip import untrained

    state = untrained(arch, seed=0, device="cpu").module().state_dict()
    for number in range(count):
        tuned = {name: value + number * 1e-3 if value.is_floating_point() else value for name, value in state.items()}
        save_file(tuned, folder / f"{number}.{SUFFIXES[0]}")
        torch.save(tuned, folder / f"{number}.{SUFFIXES[1]}")


def load(names: list[str]) -> None:
    """All at once."""
    import clipkit

    held = [clipkit.load(name, device="cpu") for name in names]
    print(len(held))


if __name__ == "__main__":
    main()
