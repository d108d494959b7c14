"""The architectures that come with clipkit: what was trained loads by every name, in clipkit and in open_clip."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch

from clipkit.errors import UsageError
from clipkit.models import listing
from clipkit.models.describe import available
from clipkit.models.load import load
from clipkit.models.names import parse
from clipkit.models.open_clip import untrained

ROOT = Path(__file__).parents[2]


def test_they_are_listed_and_told_apart() -> None:
    rows = {row["id"]: row["source"] for row in available("tiny")}
    assert rows.keys() == set(listing.tiny())
    assert set(rows.values()) == {"for training; no weights"}
    with pytest.raises(UsageError, match="without published weights"):
        parse("tiny-ViT-64")


@pytest.mark.parametrize("arch", listing.tiny())
def test_what_was_saved_loads_by_every_name(arch: str, tmp_path: Path) -> None:
    made = untrained(arch, seed=3, device="cpu")
    made.save_model(tmp_path / "model")
    picture = np.random.default_rng(0).normal(size=(1, 3, *made.identity.preprocess.size)).astype(np.float32)
    expected, _ = made.encode_images(picture)
    for name in (f"{tmp_path}/model/", f"{arch}:{tmp_path}/model/open_clip_model.safetensors"):
        again = load(name, device="cpu", precision="f32")
        assert np.array_equal(again.encode_images(picture)[0], expected)
        assert again.identity.digest == made.identity.digest
    model = open_clip.create_model(f"local-dir:{tmp_path}/model").eval()
    with torch.inference_mode():
        theirs = model.encode_image(torch.from_numpy(picture), normalize=True)
    torch.testing.assert_close(theirs.numpy(), expected, rtol=0, atol=1e-6)


def test_weights_are_the_seeds() -> None:
    torch.manual_seed(1)
    first = untrained("tiny-ViT-32", seed=0, device="cpu").identity.digest
    torch.manual_seed(2)
    drawn = torch.get_rng_state()
    assert untrained("tiny-ViT-32", seed=0, device="cpu").identity.digest == first
    assert torch.equal(torch.get_rng_state(), drawn)
    assert untrained("tiny-ViT-32", seed=1, device="cpu").identity.digest != first


def test_a_bias_is_part_of_what_is_saved(tmp_path: Path) -> None:
    untrained("tiny-ViT-32", seed=0, device="cpu", bias=-10.0).save_model(tmp_path / "model")
    assert load(f"{tmp_path}/model/", device="cpu").logit_bias == -10
    model = open_clip.create_model(f"local-dir:{tmp_path}/model")
    assert float(model.logit_bias.detach()) == -10


@pytest.mark.parametrize("arch", listing.tiny())
def test_the_sizes_that_the_docs_name(arch: str) -> None:
    named = re.search(rf"`{arch}` .*\| ([\d.]+), and ([\d.]+) \|", (ROOT / "docs" / "models.md").read_text())
    assert named is not None
    sizes = {name: value.numel() for name, value in untrained(arch, seed=0).module().named_parameters()}
    vocabulary = sum(count for name, count in sizes.items() if count >= 49_408 * 64)
    assert [round((sum(sizes.values()) - vocabulary) / 1e6, 1), round(vocabulary / 1e6, 1)] == [
        float(size) for size in named.groups()
    ]
