"""Adapters that were trained through the model: applied to a tiny random one, and made a part of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image

from clipkit import api, cli
from clipkit.errors import ClipkitError
from clipkit.images.decode import decode
from clipkit.methods import ADAPTERS
from clipkit.methods.adapters import files
from clipkit.methods.adapters.data import Samples, Task
from clipkit.methods.adapters.head_file import load_head
from clipkit.models.base import Encoder
from clipkit.models.load import load
from clipkit.stages.apply import Apply
from clipkit.stages.zeroshot import Zeroshot
from clipkit.text.classifier import classifier
from clipkit.text.labels import Labels
from tests.models import tiny

PROMPTS = {"red": ["a red thing"], "green": ["a green thing", "grass"], "blue": ["a blue thing"]}
LABELS = Labels.from_json(PROMPTS)
QUICK = {
    "lora": {"steps": 3, "lr": 0.05},
    "svd": {"steps": 3, "lr": 0.3},
    "coop": {"epochs": 2, "length": 2, "crops": 0},
}


@dataclass(frozen=True)
class Plain:
    """Pictures as they are; all their views are the same."""

    encoder: Encoder
    paths: list[Path]

    def __len__(self) -> int:
        return len(self.paths)

    def pixels(self, row: int, view: int = 0) -> np.ndarray:
        return self.encoder.preprocess(decode(self.paths[row].read_bytes()))


@dataclass(frozen=True)
class Trained:
    """An adapter in a folder, its model by the name to ask for, and the pictures."""

    folder: Path
    model: str
    encoder: Encoder
    paths: list[Path]

    @property
    def given(self) -> list[dict[str, Any]]:
        return [{"id": path.name, "image": str(path)} for path in self.paths]

    def apply(self, **config: Any) -> list[dict[str, Any]]:
        stage = Apply({"adapter": str(self.folder), "model": self.model, **config})
        return preds(stage, self.given)


def preds(stage: Any, given: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [record["pred"] for record in api.run(stage, given, workers=1)]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    tiny.register(folder)
    model = tiny.make("tiny-vit")
    with torch.no_grad():  # as in a trained model, weights are no ones and zeros
        for value in model.parameters():
            value.add_(0.02 * torch.randn_like(value))
    tiny.save(model, folder / "model.safetensors")
    for number, name in enumerate(name for name in PROMPTS for _ in range(2)):
        noise = np.random.default_rng(number).integers(0, 90, (40, 40, 3), dtype=np.uint8)
        noise[..., list(PROMPTS).index(name)] += 150
        Image.fromarray(noise).save(folder / f"{number}-{name}.png")
    return folder


@pytest.fixture(scope="module", params=QUICK)
def trained(request: pytest.FixtureRequest, root: Path) -> Trained:
    name = f"tiny-vit:{root / 'model.safetensors'}"
    encoder, paths = load(name), sorted(root.glob("*.png"))
    prompts = tuple(tuple(texts) for texts in PROMPTS.values())
    text = classifier(encoder, LABELS, ())
    task = Task(LABELS.names, text, encoder.logit_scale, encoder.logit_bias, "joint", prompts, encoder)
    labels = np.repeat(np.arange(3), 2)
    support = Samples(task, labels, pictures=Plain(encoder, paths), names=[path.name for path in paths])
    adapter = ADAPTERS.get(request.param)(**QUICK[request.param]).fit(support)
    folder = root / f"{request.param}.adapter"
    files.save(folder, adapter, encoder.identity, {"shots": 2})
    return Trained(folder, name, encoder, paths)


def method(trained: Trained) -> str:
    return trained.folder.stem


def only(*methods: str) -> Any:
    return pytest.mark.parametrize("trained", methods, indirect=True)


def test_the_classes_are_what_the_changed_model_says_of_their_prompts(trained: Trained) -> None:
    adapter = files.load(trained.folder).adapter
    changed = adapter.attach(trained.encoder)
    text = adapter.state_["text"] if method(trained) == "coop" else classifier(changed, LABELS, ())
    joint = changed.encode_images(np.stack([Plain(changed, trained.paths).pixels(row) for row in range(6)]))[0]
    logits = changed.logit_scale * joint.astype(np.float64) @ text.T.astype(np.float64)
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    for pred, row in zip(trained.apply(), expected, strict=True):
        assert [dict(map(tuple, pred["topk"]))[name] for name in PROMPTS] == pytest.approx(row, abs=2e-6)


def test_blend_0_is_the_model_as_it_was(trained: Trained) -> None:
    plain = preds(Zeroshot({"model": trained.model, "labels": PROMPTS}), trained.given)
    assert trained.apply(blend=0.0) == plain != trained.apply()


@only("lora", "svd")
def test_a_changed_model_takes_labels_that_it_was_not_trained_on(trained: Trained) -> None:
    ours = trained.apply(labels=["cat", "dog"])
    assert ours != preds(Zeroshot({"model": trained.model, "labels": ["cat", "dog"]}), trained.given)
    assert {name for name, _ in ours[0]["topk"]} == {"cat", "dog"}


@only("lora")
def test_the_cache_keeps_the_changed_model_apart(trained: Trained, tmp_path: Path) -> None:
    runtime = {"cache": str(tmp_path / "cache"), "cache_bytes": 1 << 30}
    plain = {"model": trained.model, "labels": PROMPTS}
    adapted = {"model": trained.model, "adapter": str(trained.folder)}
    before = preds(Zeroshot(plain), trained.given), preds(Apply(adapted), trained.given)
    for _ in range(2):
        assert preds(Zeroshot(plain, runtime), trained.given) == before[0]
        assert preds(Apply(adapted, runtime), trained.given) == before[1]


@only("lora", "svd")
def test_folded_it_is_a_model_that_open_clip_loads_too(
    trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "merged"
    words = ["fold-adapter", str(trained.folder), "--json", "-o"]
    assert cli.run([*words, f"{out}/", "--model", trained.model]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["kind"], said["method"]) == ("model", method(trained))
    assert len({path.stat().st_mode for path in out.iterdir()}) == 1, "who may read one may read all"
    assert load(str(out)).identity.digest == said["model"].rpartition("@")[2]
    assert preds(Zeroshot({"model": str(out), "labels": PROMPTS}), trained.given) == trained.apply()
    model, preprocess = open_clip.create_model_from_pretrained(f"local-dir:{out}")
    changed = files.load(trained.folder).adapter.attach(trained.encoder)
    with torch.no_grad():
        theirs = model.encode_image(preprocess(Image.open(trained.paths[0]).convert("RGB"))[None], normalize=True)
    ours = changed.encode_images([changed.preprocess(Image.open(trained.paths[0]))])[0]
    np.testing.assert_allclose(theirs.numpy(), ours, atol=1e-5)
    assert cli.run([*words, str(out), "--model", trained.model]) == 2  # nothing is written over what is there
    assert "exists" in capsys.readouterr().err
    assert cli.run([*words, str(tmp_path / "x.safetensors"), "--model", trained.model]) == 2
    assert "a model is a folder" in capsys.readouterr().err
    assert cli.run([*words, str(tmp_path / "other")]) == 1  # of a model in a file, the file must be named
    assert "--model" in capsys.readouterr().err
    assert not (tmp_path / "other").exists()


@only("coop")
def test_learned_words_fold_to_a_head(trained: Trained, tmp_path: Path) -> None:
    out = str(tmp_path / "head.safetensors")
    assert cli.run(["fold-adapter", str(trained.folder), "-o", out]) == 0
    head = load_head(out).head
    assert head.joint is not None and head.joint.shape == (3, trained.encoder.identity.dim) and head.backbone is None


Tensors = dict[str, np.ndarray]


def first(tensors: Tensors) -> str:
    """The name of an array that was trained."""
    return min(name for name in tensors if name.startswith("state.") and "context" not in name)


def damaged(trained: Trained, folder: Path, damage: Callable[[Tensors], Any]) -> Any:
    """The stage with an adapter some of whose arrays are others."""
    from safetensors.numpy import load_file, save_file

    folder.mkdir()
    (folder / files.MANIFEST).write_bytes((trained.folder / files.MANIFEST).read_bytes())
    tensors = load_file(trained.folder / files.TENSORS)
    damage(tensors)
    save_file(tensors, folder / files.TENSORS)
    return Apply({"adapter": str(folder), "model": trained.model})


def test_without_what_was_trained_it_is_damaged(trained: Trained, tmp_path: Path) -> None:
    with pytest.raises(ClipkitError, match="broken is damaged: it lacks"):
        damaged(trained, tmp_path / "broken", lambda tensors: tensors.pop(first(tensors))).setup()


@only("lora", "svd")
@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (
            lambda tensors: {first(tensors): tensors[first(tensors)][..., :-1].copy()},
            "broken is damaged: .* and the model takes float32",
        ),
        (
            lambda tensors: {first(tensors): tensors[first(tensors)][None]},
            "broken is damaged: .* and the model takes float32",
        ),
        (lambda tensors: {first(tensors): tensors[first(tensors)].astype(np.int16)}, "broken is damaged: .* is int16"),
        (
            lambda tensors: {"state.visual.conv1.weight.d": np.ones(3, np.float32)},
            "broken is damaged: the model has no weight for",
        ),
        (lambda tensors: {name: np.full_like(value, 3e38) for name, value in tensors.items()}, "not finite"),
        (
            lambda tensors: {first(tensors): np.full_like(tensors[first(tensors)], np.nan)},
            "broken is damaged: it holds what is not finite",
        ),
    ],
    ids=["short", "deep", "whole numbers", "no such weight", "huge", "nan"],
)
def test_arrays_that_do_not_fit_the_model_are_named(
    trained: Trained, tmp_path: Path, damage: Callable[[Tensors], Tensors], said: str
) -> None:
    with pytest.raises(ClipkitError, match=said):
        damaged(trained, tmp_path / "broken", lambda tensors: tensors.update(damage(tensors))).setup()
