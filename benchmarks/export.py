"""What an exported ViT-B-32 costs, against the same weights in open_clip with torch.

    python benchmarks/export.py [ROUNDS]

Random weights, saved on the spot and exported by `clipkit export` (f32 and --int8). Whole processes: one photo, two
labels, from the start of the process to its end, in turns; the median of ROUNDS (5). Then one process each measures a
picture at a time, and batches of 8, after warming up; all with as many threads as there are cores.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from statistics import median

from cold import OPEN_CLIP
from common import CLIPKIT, MB, ROOT, Run, child, cores, facts, middle, run, scratch, spread, table

PHOTO = ROOT / "samples" / "cat.jpg"
LIMITS = "cold start 5 times, latency 1.7 times, memory 2 times; int8 image tower 0.28, text tower 0.30 of f32"

TORCH_STEADY = """
import json, sys, time, torch, open_clip
torch.set_num_threads(int(sys.argv[2]))
model = open_clip.create_model("ViT-B-32", pretrained=sys.argv[1]).eval()
def forward(rows):
    with torch.inference_mode():
        model.encode_image(torch.zeros(rows, 3, 224, 224), normalize=True)
"""
EXPORTED_STEADY = """
import json, sys, time, numpy as np
from pathlib import Path
from clipkit.models import exported
encoder = exported.load(Path(sys.argv[1]), threads=int(sys.argv[2]))
def forward(rows):
    encoder.encode_images(np.zeros((rows, 3, 224, 224), np.float32))
"""
TIMED = """
def seconds(rows, times):
    forward(rows)
    taken = []
    for _ in range(times):
        begun = time.perf_counter()
        forward(rows)
        taken.append(time.perf_counter() - begun)
    return sorted(taken)[times // 2]
print(json.dumps([seconds(1, 20), seconds(8, 5) / 8]))
"""


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    print(facts("onnxruntime", "torch", "open_clip_torch"), end="\n\n")
    with scratch() as folder:
        checkpoint = folder / "random.pt"
        child("benchmarks/random_clip.py", checkpoint)
        flags_of = {"f32": [], "f32, --external-data": ["--external-data"], "int8": ["--int8", "--min-agreement", "0"]}
        folders = {name: folder / name.partition(",")[0] for name in flags_of}
        folders["f32, --external-data"] = folder / "external"
        for name, flags in flags_of.items():
            out = folders[name]
            run([*CLIPKIT, "export", "--model", f"ViT-B-32:{checkpoint}", *flags, "-q", "-o", str(out)])
        sizes(folders)
        cold(rounds, folders, checkpoint)
        steady(rounds, folders, checkpoint)
    print(f"Limits, of f32 against open_clip: {LIMITS}.")


def sizes(folders: dict[str, Path]) -> None:
    rows = []
    for tower in ("image", "text"):
        f32, int8 = ((folders[name] / f"{tower}.onnx").stat().st_size for name in ("f32", "int8"))
        rows.append([tower, f"{f32 / MB:.1f}", f"{int8 / MB:.1f}", f"{int8 / f32:.3f}"])
    table(["tower", "f32, MB", "int8, MB", "ratio"], rows)


def cold(rounds: int, folders: dict[str, Path], checkpoint: Path) -> None:
    """Processes from start to end; the first round, which fills the page cache, doesn't count."""
    ask = [*CLIPKIT, "zeroshot", str(PHOTO), "--labels", "cats,dogs", "--template", "a photo of {}.", "--no-cache"]
    commands = {
        "open_clip, a script": [sys.executable, "-c", OPEN_CLIP, str(checkpoint), str(PHOTO)],
        **{f"clipkit zeroshot, {name}": [*ask, "--model", str(out)] for name, out in folders.items()},
    }
    measured: dict[str, list[Run]] = {name: [] for name in commands}
    for number in range(rounds + 1):
        for name, command in commands.items():
            found = run(command)
            if number:
                measured[name].append(found)
    peer = middle(measured["open_clip, a script"])
    table(
        ["one photo, two labels, cold", "wall (least-most)", "peak memory", "faster", "smaller"],
        (
            [
                name,
                spread(found),
                f"{middle(found).peak / MB:,.0f} MB",
                f"{peer.wall / middle(found).wall:.1f}",
                f"{peer.peak / middle(found).peak:.1f}",
            ]
            for name, found in measured.items()
        ),
    )


def steady(rounds: int, folders: dict[str, Path], checkpoint: Path) -> None:
    """A warm process, pictures that are ready: the model alone."""
    commands = {
        "open_clip, torch": [sys.executable, "-c", TORCH_STEADY + TIMED, str(checkpoint)],
        **{name: [sys.executable, "-c", EXPORTED_STEADY + TIMED, str(out)] for name, out in folders.items()},
    }
    measured: dict[str, list[list[float]]] = {name: [] for name in commands}
    for _ in range(rounds):
        for name, command in commands.items():
            measured[name].append(output_of([*command, str(cores())]))
    middles = {name: [median(column) for column in zip(*found, strict=True)] for name, found in measured.items()}
    one, many = middles["open_clip, torch"]
    table(
        ["the model alone, warm", "one picture", "images/s alone", "faster", "images/s in batches of 8", "faster"],
        (
            [name, f"{a * 1e3:.1f} ms", f"{1 / a:.1f}", f"{one / a:.2f}", f"{1 / b:.1f}", f"{many / b:.2f}"]
            for name, (a, b) in middles.items()
        ),
    )


def output_of(command: list[str]) -> list[float]:
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True)
    found: list[float] = json.loads(done.stdout)
    return found


if __name__ == "__main__":
    main()
