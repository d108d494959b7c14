"""One question to a cold process: `clipkit zeroshot` with the model it carries, against open_clip's ViT-B-32.

    python benchmarks/cold.py [RUNS]

Each figure is of a whole process, files in the page cache, the median of RUNS (7) runs taken in turns. The checkpoint
has random weights, saved on the spot: the answer means nothing, the work is that of a trained one.
"""

from __future__ import annotations

import sys
from pathlib import Path

from common import CLIPKIT, MB, ROOT, Run, child, facts, middle, run, scratch, spread, table

PHOTO = ROOT / "samples" / "cat.jpg"
ASK = ["--labels", "cats,dogs"]
PEER = "open_clip ViT-B-32, a script"
LIMITS = "at most 0.7 s and 250 MB, and 12 times faster than open_clip"

OPEN_CLIP = """
import sys, torch, open_clip
from PIL import Image
model, _, preprocess = open_clip.create_model_and_transforms("ViT-B-32", pretrained=sys.argv[1])
model.eval()
tokenizer = open_clip.get_tokenizer("ViT-B-32")
with torch.inference_mode():
    image = model.encode_image(preprocess(Image.open(sys.argv[2])).unsqueeze(0), normalize=True)
    texts = model.encode_text(tokenizer(["a photo of cats.", "a photo of dogs."]), normalize=True)
    print((model.logit_scale.exp() * image @ texts.T).softmax(dim=-1).tolist())
"""


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 7
    print(facts("onnxruntime", "torch", "open_clip_torch"), end="\n\n")
    with scratch() as folder:
        checkpoint = folder / "random.pt"
        child("benchmarks/random_clip.py", checkpoint)
        ask = [*CLIPKIT, "zeroshot", str(PHOTO), *ASK, "--no-cache"]
        measured: dict[str, list[Run]] = {}
        for number in range(-1, count):  # the first round is for bytecode, the page cache and the labels' features
            for name, found in {
                "`clipkit zeroshot --no-cache`": run(ask),
                "`clipkit zeroshot`, labels cached": run(
                    [*CLIPKIT, "zeroshot", str(other_file(folder, number)), *ASK], cache=folder / "cache"
                ),
                PEER: run([sys.executable, "-c", OPEN_CLIP, str(checkpoint), str(PHOTO)]),
                "`clipkit zeroshot --no-cache --model ViT-B-32:FILE`": run([*ask, "--model", f"ViT-B-32:{checkpoint}"]),
            }.items():
                if number >= 0:
                    measured.setdefault(name, []).append(found)
    peer = middle(measured[PEER])
    rows = [row(name, found, peer) for name, found in measured.items()]
    table(["one photo, two labels", "wall (least-most)", "CPU", "peak memory", "faster than open_clip"], rows)
    print(f"Limits for the first row: {LIMITS}.")


def other_file(folder: Path, number: int) -> Path:
    """The photo in a file of other bytes, so that its features are not cached: some follow the end of the picture."""
    photo = folder / f"{number}.jpg"
    photo.write_bytes(PHOTO.read_bytes() + str(number).encode())
    return photo


def row(name: str, found: list[Run], peer: Run) -> list[str]:
    run = middle(found)
    return [name, spread(found), f"{run.cpu:.2f} s", f"{run.peak / MB:.0f} MB", f"{peer.wall / run.wall:.1f}x"]


if __name__ == "__main__":
    main()
