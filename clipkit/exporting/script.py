"""run.py: the few lines that run an exported folder without clipkit or torch, to be read and pasted."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final


@dataclass(frozen=True)
class Runtime:
    """What runs the networks, as a script says it. packages: for pip. imports: of the script.

    opening: an expression that opens the network of `tower`, in the folder `here`. calling: one that runs `network` on
    `row`, one row of f32 or u8 pixels or of int64 tokens, and gives `joint` [1, d].
    """

    packages: str
    imports: str
    opening: str
    calling: str


RUNTIMES: Final[Mapping[str, Runtime]] = {
    "onnx": Runtime(
        "onnxruntime",
        "import onnxruntime",
        'onnxruntime.InferenceSession(here / f"{tower}.onnx")',
        'network.run(["joint"], {network.get_inputs()[0].name: row})[0]',
    ),
    "openvino": Runtime(
        "openvino",
        'sys.modules["openvino_telemetry"] = None  # else openvino reports that it is used\nimport openvino',
        'openvino.compile_model(here / f"{tower}.xml", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})',
        'network(row)["joint"]',
    ),
    "torch.export": Runtime(
        "torch",
        "import torch",
        'torch.export.load(here / f"{tower}.pt2").module()',
        "network(torch.from_numpy(row))[0].detach().numpy()",
    ),
    "executorch": Runtime(
        "executorch",
        "import torch\nfrom executorch.runtime import Runtime",
        'Runtime.get().load_program(here / f"{tower}.pte").load_method("forward")',
        "network.execute([torch.from_numpy(np.ascontiguousarray(row))])[0].numpy().copy()",
    ),
    "coreml": Runtime(
        "coremltools",
        "import coremltools",
        'coremltools.models.MLModel(str(here / f"{tower}.mlpackage"), compute_units=coremltools.ComputeUnit.CPU_ONLY)',
        'network.predict({"pixels": row} if row.ndim == 4 else {"tokens": row.astype(np.int32)})["joint"]',
    ),
}
"""By the name in a manifest; a folder for any other runtime gets no run.py."""

_ARGUMENTS = {("image", "text"): 'photo.jpg "a cat" "a dog"', ("image",): "photo.jpg", ("text",): '"a cat" "a dog"'}


def script(manifest: Mapping[str, Any]) -> str | None:
    """The program for the folder that a manifest describes; None for a runtime that no program is known for."""
    runtime = RUNTIMES.get(manifest["runtime"])
    if runtime is None:
        return None
    towers: list[str] = manifest["towers"]
    parts = [_head(manifest, runtime), _networks(runtime)]
    if "image" in towers:
        parts.append(pixels(manifest))
    if "text" in towers:
        parts.append(_tokens(manifest, "sys.argv[2:]" if "image" in towers else "sys.argv[1:]"))
    parts.append(_answers(manifest))
    return "\n".join(parts)


def _head(manifest: Mapping[str, Any], runtime: Runtime) -> str:
    towers = manifest["towers"]
    both = len(towers) == 2
    says = (
        "how well each text fits a photo"
        if both
        else f"the features of {'a photo' if towers == ['image'] else 'texts'}"
    )
    pip = ["numpy", *["pillow"][: "image" in towers], *["tokenizers"][: "text" in towers], runtime.packages]
    lines = [
        f'"""{_plain(manifest["name"])} without clipkit: {says}.',
        "",
        f"    pip install {' '.join(pip)}",
        f"    python run.py {_ARGUMENTS[tuple(towers)]}",
        '"""',
        "",
        *["import html"][: "text" in towers],
        *["import string"][: "text" in towers and manifest["tokenizer"]["clean"] == "canonicalize"],
        "import sys",
        "from pathlib import Path",
        "",
        "import numpy as np",
        runtime.imports,
        *["from PIL import Image, ImageOps"][: "image" in towers],
        *["from tokenizers import Tokenizer"][: "text" in towers],
        "",
        "here = Path(__file__).resolve().parent",
        f"if len(sys.argv) < {len(towers) + 1}:",
        "    sys.exit(__doc__)",
        "",
    ]
    return "\n".join(lines)


def _plain(name: str) -> str:
    """A name that can do nothing in a program: folders and files may be called anything."""
    return re.sub(r"[^\w:.@+-]", "_", name)


def _networks(runtime: Runtime) -> str:
    return f"""
def features(tower, rows):
    network = {runtime.opening}
    found = [{runtime.calling} for row in np.split(rows, len(rows))]
    found = np.concatenate(found).astype(np.float32)
    return found / np.linalg.norm(found, axis=1, keepdims=True)

"""


def pixels(manifest: Mapping[str, Any]) -> str:
    """Lines that make `pixels`, what the image network takes, of the photo `sys.argv[1]`."""
    opened = 'if not Path(sys.argv[1]).is_file():\n    sys.exit(f"there is no file {sys.argv[1]}")\n'
    opened += 'image = ImageOps.exif_transpose(Image.open(sys.argv[1])).convert("RGB")\n'
    if manifest["pixels"] == "raw":
        return f"{opened}pixels = np.asarray(image)[None]  # of any size: the network resizes and normalises them\n"
    described = manifest["preprocess"]
    mean, std = tuple(described["mean"]), tuple(described["std"])
    return f"""{opened}# Clipkit decodes large JPEGs reduced, unless --exact-decode: the 5th digit differs.
{_resized(described)}mean, std = np.float32({mean}), np.float32({std})
pixels = ((np.asarray(image, np.float32) / 255 - mean) / std).transpose(2, 0, 1)[None]
"""


def _resized(described: Mapping[str, Any]) -> str:
    """As `clipkit.images.transform.frame` has it."""
    height, width = described["size"]
    mode, cubic = described["resize_mode"], f"Image.Resampling.{described['interpolation'].upper()}"
    if mode == "squash":
        return f"image = image.resize(({width}, {height}), {cubic})\n"
    if mode == "shortest" and (described["resize"] or width == height):
        short = described["resize"] or width
        resized = f"""short = min(image.size)
image = image.resize(({short} * image.width // short, {short} * image.height // short), {cubic})
"""
    else:
        which = "max" if mode == "longest" else "min"
        cubic = cubic if mode == "longest" else "Image.Resampling.BICUBIC"
        resized = f"""ratio = {which}(image.width / {width}, image.height / {height})
image = image.resize((max(1, round(image.width / ratio)), max(1, round(image.height / ratio))), {cubic})
"""
    if mode == "longest":
        fill = (described["fill"],) * 3
        return f"""{resized}small, image = image, Image.new("RGB", ({width}, {height}), {fill})
image.paste(small, (({width} - small.width) // 2, ({height} - small.height) // 2))
"""
    return f"""{resized}left, top = round((image.width - {width}) / 2), round((image.height - {height}) / 2)
image = image.crop((left, top, left + {width}, top + {height}))
"""


def _tokens(manifest: Mapping[str, Any], given: str) -> str:
    about, context = manifest["tokenizer"], manifest["context_length"]
    text = "html.unescape(html.unescape(text))"
    if about["clean"] == "canonicalize":
        text += '.replace("_", " ").translate(str.maketrans("", "", string.punctuation))'
    text = f'" ".join({text}.split()){"" if about["clean"] == "whitespace" else ".lower()"}'
    return f"""tokenizer = Tokenizer.from_file(str(here / "{about["file"]}"))
tokenizer.enable_truncation({context})
tokenizer.enable_padding(length={context}, pad_id={about["pad"]})
# Clipkit mends mojibake too: ftfy.fix_text(text).
texts = [{text} for text in {given}]
tokens = np.array([tokenizer.encode(text).ids for text in texts], np.int64)
"""


def _answers(manifest: Mapping[str, Any]) -> str:
    if len(manifest["towers"]) == 1:
        (tower,) = manifest["towers"]
        return f"""for row in features("{tower}", {"pixels" if tower == "image" else "tokens"}):
    print(*(f"{{value:.6f}}" for value in row))
"""
    bias = f" + {manifest['logit_bias']!r}" if manifest["logit_bias"] is not None else ""
    return f"""logits = {manifest["logit_scale"]!r} * features("image", pixels) @ features("text", tokens).T{bias}
likely = np.exp(logits[0] - logits.max())
for text, probability in zip(sys.argv[2:], likely / likely.sum()):
    print(f"{{probability:.6f}}  {{text}}")
"""
