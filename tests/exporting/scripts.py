"""Runs the run.py of an exported folder beside the encoder that was exported."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np

from clipkit.models.base import Encoder
from tests.exporting.conftest import pictures


def check_script(folder: Path, before: Encoder, scratch: Path) -> None:
    """Its probabilities of two texts are the encoder's, and clipkit is not imported."""
    picture = pictures(1)[0]
    picture.save(scratch / "photo.png")
    texts = ["a cat", "two dogs"]
    said = subprocess.run(
        [
            sys.executable,
            "-W",
            "ignore",
            "-X",
            "importtime",
            str(folder / "run.py"),
            str(scratch / "photo.png"),
            *texts,
        ],
        capture_output=True,
        text=True,
        check=True,
        cwd=scratch,
    )
    joint = before.encode_images([before.preprocess(picture)])[0]
    logits = before.logit_scale * (joint @ before.encode_texts(texts).T)[0] + (before.logit_bias or 0)
    wanted = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
    lines = [line.partition("  ") for line in said.stdout.splitlines()]
    assert [text for _, _, text in lines] == texts
    np.testing.assert_allclose([float(value) for value, _, _ in lines], wanted, atol=1e-3)
    assert not re.search(r"\| +(clipkit|open_clip)\b", said.stderr)
