"""Guards: weights that do not fit their architecture, or would silently run wrong, are refused with the fix named."""

from __future__ import annotations

import hashlib
import json
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from clipkit.errors import ClipkitError
from clipkit.models import listing
from clipkit.models.load import load
from tests.models import tiny

Checkpoint = Callable[[str], Path]


def error(name: str) -> ClipkitError:
    with pytest.raises(ClipkitError) as caught:
        load(name)
    assert "\n" not in caught.value.message
    return caught.value


def openai_state() -> dict[str, torch.Tensor]:
    names = ("input_resolution", "context_length", "vocab_size")
    return {"logit_scale": torch.tensor(4.6), **{name: torch.tensor(1) for name in names}}


def test_openais_own_state_dict_in_a_gelu_architecture(tmp_path: Path) -> None:
    torch.save(openai_state(), tmp_path / "clip.pt")
    refused = error(f"ViT-B-32:{tmp_path}/clip.pt")
    assert "trained with QuickGELU (it has the entries of OpenAI's own models)" in refused.message
    assert refused.hint == f"give ViT-B-32-quickgelu:{tmp_path}/clip.pt"


@pytest.mark.parametrize(
    ("arch", "quick_gelu", "fix"), [("RN50", True, "RN50-quickgelu"), ("ViT-L-14-quickgelu", False, "ViT-L-14")]
)
def test_the_config_beside_a_checkpoint_says_its_activation(
    tmp_path: Path, arch: str, quick_gelu: bool, fix: str
) -> None:
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": {"quick_gelu": quick_gelu}}))
    torch.save({"logit_scale": torch.tensor(1.0)}, tmp_path / "a.pt")
    refused = error(f"{arch}:{tmp_path}/a.pt")
    assert "open_clip_config.json beside it says so" in refused.message
    assert refused.hint == f"give {fix}:{tmp_path}/a.pt"


@pytest.mark.parametrize(
    ("params", "arch", "fix"),
    [
        ("model: ViT-B-32-quickgelu\nforce_quick_gelu: False\n", "ViT-B-32", "ViT-B-32-quickgelu"),
        ("model: ViT-B-32\nforce_quick_gelu: True\n", "ViT-B-32", "ViT-B-32-quickgelu"),
        ("model: ViT-B-32\nforce_quick_gelu: False\n", "ViT-B-32-quickgelu", "ViT-B-32"),
    ],
)
def test_a_trainings_own_record_says_its_activation(tmp_path: Path, params: str, arch: str, fix: str) -> None:
    path = tmp_path / "run" / "checkpoints" / "epoch_1.pt"
    path.parent.mkdir(parents=True)
    (tmp_path / "run" / "params.txt").write_text("lr: 0.1\n" + params)
    torch.save({"state_dict": {"logit_scale": torch.tensor(1.0)}}, path)
    refused = error(f"{arch}:{path}")
    assert "params.txt says" in refused.message
    assert refused.hint == f"give {fix}:{path}"


def test_a_release_is_known_by_its_name_if_its_digest_agrees(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "some.pt"
    torch.save({"logit_scale": torch.tensor(1.0)}, path)
    release = path.rename(tmp_path / f"rn50-{hashlib.sha256(path.read_bytes()).hexdigest()[:8]}.pt")
    entry = {**listing.pretrained()["RN50"]["cc12m"], "url": f"https://example.org/{release.name}"}
    monkeypatch.setattr(listing, "pretrained", lambda: {"RN50": {"cc12m": entry}})
    refused = error(f"RN50:{release}")
    assert "it is the release RN50:cc12m" in refused.message
    renamed = tmp_path / "rn50-00000000.pt"
    release.rename(renamed)
    entry["url"] = f"https://example.org/{renamed.name}"
    assert "release" not in error(f"RN50:{renamed}").message


def test_where_nothing_says_the_activation_the_run_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny.register(tmp_path)
    monkeypatch.setattr(listing, "twin", lambda arch: f"{arch}-quickgelu")
    path = tiny.save(tiny.make("tiny-vit"), tmp_path / "a.pt")
    (notice,) = load(f"tiny-vit:{path}").notices
    assert "GELU is taken" in notice and "tiny-vit-quickgelu" in notice


def test_sigmoid_weights_without_their_bias(checkpoint: Checkpoint) -> None:
    refused = error(f"tiny-vit-sigmoid:{checkpoint('tiny-vit')}")
    assert "the weights have no logit_bias" in refused.message
    assert "probabilities would be wrong" in str(refused.hint)


def test_a_bias_where_the_architecture_has_none(checkpoint: Checkpoint) -> None:
    refused = error(f"tiny-vit:{checkpoint('tiny-vit-sigmoid')}")
    assert "the weights have a logit_bias" in refused.message
    assert "clipkit models SigLIP" in str(refused.hint)


def changed(tmp_path: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    tiny.register(tmp_path)
    state = tiny.make("tiny-vit").state_dict()
    change(state)
    torch.save(state, tmp_path / "a.pt")
    return tmp_path / "a.pt"


def test_missing_and_unknown_tensors_are_named(tmp_path: Path) -> None:
    path = changed(tmp_path, lambda state: state.update(extra=state.pop("text_projection")))
    refused = error(f"tiny-vit:{path}")
    assert "lacks text_projection and has unknown extra" in refused.message


def test_another_shape_is_named(tmp_path: Path) -> None:
    path = changed(tmp_path, lambda state: state.update({"visual.conv1.weight": torch.zeros(64, 3, 4, 4)}))
    assert "visual.conv1.weight" in error(f"tiny-vit:{path}").message


@pytest.mark.parametrize("name", ["positional_embedding", "visual.positional_embedding", "visual.conv1.weight"])
def test_what_open_clip_stumbles_over_before_it_compares_shapes(name: str, tmp_path: Path) -> None:
    """It asserts the width of position embeddings, resizes those of pictures to a square, and more."""
    path = changed(tmp_path, lambda state: state.update({name: torch.zeros((3, *state[name].shape[1:-1], 7))}))
    assert re.search(
        rf"a\.pt does not fit the architecture: (it has other shapes than the architecture: |size mismatch for ){name}",
        error(f"tiny-vit:{path}").message,
    )


def test_position_embeddings_of_another_image_size_are_told(tmp_path: Path) -> None:
    path = changed(tmp_path, lambda state: state.update({"visual.positional_embedding": torch.zeros(65, 64)}))
    (notice,) = load(f"tiny-vit:{path}").notices
    assert "visual.positional_embedding was resized from (65, 64) to (17, 64)" in notice


class Trap:
    """What a hostile checkpoint would hold: unpickling it calls a function."""

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("trapped"),)


def test_pickled_objects_are_refused_and_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": {"a": torch.zeros(1)}, "trap": Trap()}, "zip.pt")
    with open("plain.pt", "wb") as file:
        pickle.dump({"a": Trap()}, file)
    for name in ("zip.pt", "plain.pt"):
        assert "it is not loaded" in error(f"ViT-B-32:./{name}").message
    assert not Path("trapped").exists()


def test_torchscript_is_refused(tmp_path: Path) -> None:
    class Tiny(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x

    torch.jit.save(torch.jit.trace(Tiny(), torch.zeros(1)), tmp_path / "ViT-B-32.pt")
    refused = error(f"ViT-B-32-quickgelu:{tmp_path}/ViT-B-32.pt")
    assert "TorchScript" in refused.message and "does not run" in refused.message
    assert "ViT-B-32-quickgelu:openai" in str(refused.hint)


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_a_file_cut_short(tmp_path: Path, checkpoint: Checkpoint, suffix: str) -> None:
    tiny.register(tmp_path)
    path = tiny.save(tiny.make("tiny-vit"), tmp_path / f"a{suffix}")
    path.write_bytes(path.read_bytes()[:100_000])
    assert str(path) in error(f"tiny-vit:{path}").message


@pytest.mark.parametrize("content", [{}, {"state_dict": {}}, [torch.zeros(1)], {"epoch": 3}])
def test_a_file_without_weights(tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / "a.pt")
    assert "holds no weights" in error(f"ViT-B-32:{tmp_path}/a.pt").message


def test_a_folder_in_the_hubs_layout_without_weights(tmp_path: Path) -> None:
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": tiny.CONFIGS["tiny-vit"]}))
    assert "has no weights: expected open_clip_model.safetensors" in error(f"{tmp_path}").message
