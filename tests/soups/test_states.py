"""What may be mixed is found by its name, is what the loaded model is, and fits the others; what cannot be says why."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from clipkit.errors import ClipkitError, UsageError
from clipkit.models.load import load
from clipkit.models.open_clip import OpenClipEncoder
from clipkit.soups.states import State, check, state
from tests.models import tiny
from tests.soups import small


@pytest.fixture(scope="module", autouse=True)
def _registered(tmp_path_factory: pytest.TempPathFactory) -> None:
    small.register(tmp_path_factory.mktemp("configs"))
    tiny.register(tmp_path_factory.mktemp("tiny-configs"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model as open_clip's folders have it."""
    made = tmp_path_factory.mktemp("model")
    encoder = load(small.stored(made / "a.safetensors", 0))
    assert isinstance(encoder, OpenClipEncoder)
    encoder.save_model(made / "folder")
    return made / "folder"


def run_of(folder: Path, path: Path) -> Path:
    """A folder as `clipkit train` leaves it."""
    shutil.copytree(folder, path / "model")
    shutil.copytree(folder, path / "checkpoints" / "step-00000010")
    (path / "run.json").write_text('{"verb": "train"}')
    return path


@pytest.mark.parametrize("arch", tiny.FAMILIES)
@pytest.mark.parametrize("suffix", ["safetensors", "pt"])
def test_it_is_what_the_loaded_model_is(arch: str, suffix: str, tmp_path: Path) -> None:
    """Of every family: the identity without the model."""
    name = f"{arch}:{tiny.save(tiny.make(arch), tmp_path / f'model.{suffix}')}"
    assert state(name).identity == load(name).identity


@pytest.mark.parametrize("wrap", ["module", "state_dict", "half", "openai"])
def test_what_open_clip_takes_off_is_taken_off(wrap: str, folder: Path, tmp_path: Path) -> None:
    held: dict[str, Any] = load_file(folder / "open_clip_model.safetensors")
    if wrap == "module":
        held = {f"module.{name}": value for name, value in held.items()}
    elif wrap == "half":
        held = {name: value.half() for name, value in held.items()}
    elif wrap == "openai":
        held |= {name: torch.tensor(8) for name in ("input_resolution", "context_length", "vocab_size")}
    torch.save({"epoch": 3, "state_dict": held} if wrap != "openai" else held, tmp_path / "model.pt")
    arch = "soup-vit-quickgelu" if wrap == "openai" else "soup-vit"
    name = f"{arch}:{tmp_path / 'model.pt'}"
    assert state(name).identity == load(name).identity


def test_a_folder_a_run_and_its_checkpoint(folder: Path, tmp_path: Path) -> None:
    run = run_of(folder, tmp_path / "run-1")
    named = {
        f"{folder}/": "folder",
        f"{run}": "run-1",
        f"{run}/": "run-1",
        f"{run}/model/": "run-1",
        f"{run}/checkpoints/step-00000010/": "run-1/step-00000010",
    }
    for given, name in named.items():
        found = state(given)
        assert found.name == name
        assert found.identity.digest == load(f"{folder}/").identity.digest
        assert load(found.model).identity == found.identity


def test_a_run_here(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_of(folder, tmp_path / "run-1")
    monkeypatch.chdir(tmp_path)
    assert load(state("run-1").model).identity.name == state("run-1").name == "run-1"


def test_what_model_takes_for_an_export_is_one(folder: Path, tmp_path: Path) -> None:
    """Weights beside a manifest are not what `--model` would run."""
    shutil.copytree(folder, tmp_path / "export")
    (tmp_path / "export" / "clipkit.json").write_text("{}")
    with pytest.raises(UsageError, match="is an exported model"):
        state(f"{tmp_path}/export/")


def test_what_is_not_known_of_an_activation_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clipkit.models.listing.twin", lambda arch: f"{arch}-quickgelu")
    name = small.stored(tmp_path / "model.safetensors", 0)
    assert state(name).notices and "nothing says what activation" in state(name).notices[0]


def exported(folder: Path) -> Path:
    folder.mkdir()
    (folder / "clipkit.json").write_text("{}")
    return folder


def adapter(folder: Path) -> Path:
    folder.mkdir()
    (folder / "adapter.json").write_text("{}")
    return folder


def unfinished(folder: Path) -> Path:
    (folder / "checkpoints" / "step-00000010").mkdir(parents=True)
    (folder / "run.json").write_text("{}")
    return folder


@pytest.mark.parametrize(
    ("make", "said", "hint"),
    [
        (lambda path: "lite", "lite has no weights that can be mixed", "expected an open_clip model"),
        (lambda path: f"{exported(path)}/", "is an exported model", "that it was exported from"),
        (lambda path: f"{adapter(path)}/", "is an adapter, not a model", "clipkit fold-adapter"),
        (lambda path: f"{unfinished(path)}/", "is a run that has not ended", "checkpoints/step-00000010/"),
        (lambda path: f"{path}/", "no model folder", ""),
        (lambda path: f"soup-vit:{path}.pt", "no checkpoint", ""),
    ],
    ids=["lite", "exported", "adapter", "unfinished", "nothing", "no file"],
)
def test_what_cannot_be_mixed_says_why(make: Callable[[Path], str], said: str, hint: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        state(make(tmp_path / "it"))
    assert said in caught.value.message
    assert hint in (caught.value.hint or "")


@pytest.mark.parametrize("suffix", ["safetensors", "pt"])
def test_a_file_cut_short(suffix: str, tmp_path: Path) -> None:
    path = tiny.save(small.model(0), tmp_path / f"model.{suffix}")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ClipkitError, match=f"cannot read .*model.{suffix}"):
        state(f"soup-vit:{path}")


def test_a_file_that_was_cut_short_since(tmp_path: Path) -> None:
    path = tiny.save(small.model(0), tmp_path / "model.safetensors")
    found = state(f"soup-vit:{path}")
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ClipkitError, match="cannot read"):
        _ = found.weights


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda held: held.pop("ln_final.bias"), "it lacks ln_final.bias"),
        (lambda held: held.update(more=torch.zeros(2)), "it has unknown more"),
        (lambda held: held.update(text_projection=torch.zeros(2, 2)), "text_projection [2, 2] for [16, 8]"),
    ],
    ids=["lacks", "unknown", "shape"],
)
def test_what_does_not_fit_its_architecture(
    spoil: Callable[[dict[str, torch.Tensor]], object], said: str, folder: Path, tmp_path: Path
) -> None:
    held = load_file(folder / "open_clip_model.safetensors")
    spoil(held)
    save_file(held, tmp_path / "model.safetensors")
    with pytest.raises(ClipkitError) as caught:
        state(f"soup-vit:{tmp_path / 'model.safetensors'}")
    assert said in caught.value.message


@pytest.mark.parametrize(
    ("arch", "said"),
    [
        ("soup-vit-wide", "setting embed_dim is 8 and 16"),
        ("soup-vit-heads", "setting text_cfg.heads is 2 and 4"),  # no tensor tells
        ("soup-vit-quickgelu", "setting quick_gelu is absent and True"),
        ("soup-vit-sigmoid", "tensor logit_bias is absent and []"),
        ("soup-resnet", "setting vision_cfg.layers is 1 and [1, 1, 1, 1]"),
    ],
)
def test_models_that_do_not_fit_each_other(arch: str, said: str, tmp_path: Path) -> None:
    one, other = small.stored(tmp_path / "a.safetensors", 0), small.stored(tmp_path / "b.safetensors", 1, arch)
    with pytest.raises(ClipkitError) as caught:
        check([state(one), state(one), state(other)])
    assert caught.value.message.startswith(f"{one} and {other} cannot be mixed: ")
    assert said in caught.value.message


def changed(folder: Path, target: Path, change: Callable[[dict[str, Any]], object]) -> State:
    """The model with another open_clip_config.json."""
    shutil.copytree(folder, target)
    path = target / "open_clip_config.json"
    described = json.loads(path.read_text())
    change(described)
    path.write_text(json.dumps(described))
    return state(f"{target}/")


def test_other_pixels_do_not_fit(folder: Path, tmp_path: Path) -> None:
    other = changed(folder, tmp_path / "other", lambda said: said["preprocess_cfg"].update(mean=[0.5, 0.5, 0.5]))
    with pytest.raises(ClipkitError, match=r"cannot be mixed: preprocessing mean is \[0.48.* and \[0.5, 0.5, 0.5\]"):
        check([state(f"{folder}/"), other])


def test_what_is_written_out_is_what_is_meant(folder: Path, tmp_path: Path) -> None:
    """Defaults, and what is of training alone, make no difference."""

    def spell(said: dict[str, Any]) -> None:
        said["model_cfg"].update(quick_gelu=False, custom_text=False, init_logit_scale=1.0)
        said["model_cfg"]["vision_cfg"].update(mlp_ratio=4.0, patch_dropout=0.5)

    check([state(f"{folder}/"), changed(folder, tmp_path / "other", spell)])
