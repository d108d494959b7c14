"""run.py: the answers of clipkit from a program without it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from clipkit.exporting.script import script
from clipkit.exporting.source import Source
from clipkit.models.load import load
from tests.exporting.conftest import Maker, pictures

TEXTS = ["a cat", "A  Dog &amp; a cat", "many words " * 60, "ein Löwe"]
HIDDEN = "import sys; sys.modules.update(dict.fromkeys(('clipkit', 'torch', 'open_clip', 'ftfy')))"


def run(folders: Sequence[Path], *arguments: str | Path) -> list[list[str]]:
    """The lines of each folder's script, in an interpreter in which clipkit and torch cannot be imported."""
    program = f"""
{HIDDEN}
import runpy
folders, arguments = int(sys.argv[1]), sys.argv[2:]
for script in arguments[:folders]:
    sys.argv = [script, *arguments[folders:]]
    runpy.run_path(script, run_name="__main__")
    print(end="\\0")
"""
    scripts = [str(folder / "run.py") for folder in folders]
    command = [sys.executable, "-I", "-c", program, str(len(scripts)), *scripts, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=folders[0].parent)
    assert done.stderr == ""
    return [said.splitlines() for said in done.stdout.split("\0")[:-1]]


def probabilities(folder: Path, picture: Image.Image) -> np.ndarray:
    encoder = load(str(folder))
    images, _ = encoder.encode_images([encoder.preprocess(picture)])
    logits = encoder.logit_scale * images @ encoder.encode_texts(TEXTS).T.astype(np.float64)
    likely: np.ndarray = np.exp(logits - logits.max())[0]
    return likely / likely.sum()


def changed(folder: Path, **preprocess: Any) -> None:
    """Another preprocessing, in the manifest and in the script that is made of it."""
    path = folder / "clipkit.json"
    manifest = json.loads(path.read_text())
    manifest["preprocess"] |= preprocess
    path.write_text(json.dumps(manifest))
    program = script(manifest)
    assert program is not None
    (folder / "run.py").write_text(program)


def test_probabilities_are_clipkits(exported: Callable[[str], Path], tmp_path: Path) -> None:
    changes: dict[str, dict[str, Any]] = {
        "shortest": {},
        "resize": {"resize": 40},
        "squash": {"resize_mode": "squash", "interpolation": "bilinear"},
        "longest": {"resize_mode": "longest", "fill": 127},
    }
    folders = [Path(shutil.copytree(exported("tiny-vit"), tmp_path / name)) for name in changes]
    for folder, preprocess in zip(folders, changes.values(), strict=True):
        changed(folder, **preprocess)
    picture = pictures(2)[1]
    picture.save(tmp_path / "photo.png")
    answers = []
    for folder, lines in zip(folders, run(folders, tmp_path / "photo.png", *TEXTS), strict=True):
        split = [line.split("  ", 1) for line in lines]
        assert [text for _, text in split] == TEXTS
        answers.append(np.array([float(number) for number, _ in split]))
        np.testing.assert_allclose(answers[-1], probabilities(folder, picture), atol=1e-4)
    assert min(np.ptp(found) for found in answers) > 1e-3, "else nothing was compared"
    assert np.ptp(answers, axis=0).max() > 1e-3, "else the ways to resize are one"


def test_one_tower_and_raw_pixels(make: Maker, source: Callable[[str], Source], tmp_path: Path) -> None:
    """One tower prints its features; a name that would end the docstring does nothing."""
    make("onnx", source("tiny-vit"), tmp_path / "model", towers=("image",), embed_preprocessing=True)
    picture = pictures(2)[1]
    picture.save(tmp_path / "photo.png")
    encoder = load(str(tmp_path / "model"))
    wanted = encoder.encode_images([encoder.preprocess(picture)])[0][0]
    ((line,),) = run([tmp_path / "model"], tmp_path / "photo.png")
    np.testing.assert_allclose([float(value) for value in line.split()], wanted, atol=1e-5)
    manifest = json.loads((tmp_path / "model" / "clipkit.json").read_text())
    program = script(manifest | {"name": '"""\nimport os\n"""'})
    assert program is not None and "import os" not in program


def test_a_runtime_that_no_program_is_known_for(exported: Callable[[str], Path]) -> None:
    assert script(json.loads((exported("tiny-vit") / "clipkit.json").read_text()) | {"runtime": "abacus"}) is None
