"""`--to safetensors`: the folder that open_clip loads, and that is the very model."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch

from clipkit.errors import UsageError
from clipkit.exporting.source import Source
from clipkit.models.load import load
from clipkit.models.open_clip import untrained
from tests.exporting.conftest import Maker, pictures
from tests.models import tiny
from tests.models.tiny import FAMILIES


@pytest.mark.parametrize("arch", FAMILIES)
def test_open_clip_and_every_verb_load_the_very_model(
    make: Maker, source: Callable[[str], Source], arch: str, tmp_path: Path
) -> None:
    given = source(arch)
    written = make("safetensors", given, tmp_path / "out")
    assert written.same_weights and written.precision == "f32"
    (tmp_path / "out" / "parity.json").write_text("{}")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "open_clip_config.json",
        "open_clip_model.safetensors",
        "parity.json",
    }
    again = load(f"{tmp_path / 'out'}/", device="cpu")
    assert again.identity.digest == given.encoder.identity.digest
    assert (again.logit_scale, again.logit_bias) == (given.encoder.logit_scale, given.encoder.logit_bias)
    picture = pictures(1)[0]
    theirs, _, transform = open_clip.create_model_and_transforms(f"local-dir:{tmp_path / 'out'}")
    ours = given.encoder.module()  # type: ignore[attr-defined]
    assert theirs.state_dict().keys() == ours.state_dict().keys()
    assert all(torch.equal(value, ours.state_dict()[name]) for name, value in theirs.state_dict().items())
    np.testing.assert_array_equal(transform(picture).numpy(), given.encoder.preprocess(picture))


@pytest.mark.parametrize("arch", ["tiny-ViT-32", "tiny-CoCa-64"])
def test_architectures_that_clipkit_carries(make: Maker, arch: str, tmp_path: Path) -> None:
    model = untrained(arch, seed=1)
    weights = tiny.save(model.module(), tmp_path / "model.safetensors")
    make("safetensors", f"{arch}:{weights}", tmp_path / "out")
    assert load(f"{tmp_path / 'out'}/", device="cpu").identity.weights == model.identity.weights


def test_a_pickled_checkpoint_becomes_plain_tensors(
    make: Maker, checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    """f16 in a .pt is the same model in f32, and the activation that its architecture has travels."""
    state = {name: value.half() for name, value in tiny.make("tiny-resnet").state_dict().items()}
    checkpoint("tiny-resnet")
    torch.save(
        {"epoch": 3, "state_dict": {f"module.{name}": value for name, value in state.items()}}, tmp_path / "a.pt"
    )
    source = f"tiny-resnet:{tmp_path / 'a.pt'}"
    make("safetensors", source, tmp_path / "out")
    again = load(f"{tmp_path / 'out'}/", device="cpu")
    assert again.identity.digest == load(source, device="cpu").identity.digest
    assert "quickgelu" in again.identity.activation
    assert json.loads((tmp_path / "out" / "open_clip_config.json").read_text())["model_cfg"]["quick_gelu"] is True


def test_preprocessing_travels(make: Maker, checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    """What the file's own configuration says beside it, not what the architecture usually has."""
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(checkpoint("tiny-vit").read_bytes())
    own = {"mean": [0.5, 0.5, 0.5], "std": [0.4, 0.5, 0.6], "interpolation": "bilinear", "resize_mode": "longest"}
    described = {"model_cfg": tiny.CONFIGS["tiny-vit"], "preprocess_cfg": own | {"fill_color": 127}}
    (folder / "open_clip_config.json").write_text(json.dumps(described))
    make("safetensors", f"tiny-vit:{folder / 'model.safetensors'}", tmp_path / "out")
    preprocess = load(f"{tmp_path / 'out'}/", device="cpu").identity.preprocess
    assert (preprocess.mean, preprocess.std) == ((0.5, 0.5, 0.5), (0.4, 0.5, 0.6))
    assert (preprocess.interpolation, preprocess.resize_mode, preprocess.fill) == ("bilinear", "longest", 127)


def test_one_tower_is_no_model(make: Maker, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="a model has both towers") as caught:
        make("safetensors", "lite", tmp_path / "out", towers=("image",))
    assert caught.value.hint and "onnx" in caught.value.hint
