"""CLIP-LoRA in tiny random towers of each family."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from torch.nn import functional

from clipkit.errors import ClipkitError, UsageError
from clipkit.methods.adapters import files, selection, towers, weights
from clipkit.methods.adapters.data import Features
from clipkit.methods.adapters.finetune import watching
from clipkit.methods.adapters.lora import Lora
from clipkit.methods.adapters.lowrank import LowRanks
from clipkit.methods.adapters.selection import Selection
from clipkit.methods.adapters.svd import Svd
from clipkit.methods.adapters.weights import WeightAdapter
from clipkit.models.load import load
from tests.methods.adapters.tower_tasks import (
    PROMPTS,
    STYLES,
    encoder,
    features,
    one_thread,
    samples,
    shuffled,
    stacked,
)

__all__ = ["one_thread"]  # a fixture of every test here
TEXTS = [text for prompts in PROMPTS for text in prompts]


def wrapped(arch: str, *, train: bool = False, **params: Any) -> tuple[Any, LowRanks, Lora]:
    lora = Lora(**params)
    model = encoder(arch).module()
    updates = lora._wrap(model.requires_grad_(False), samples(arch).task)
    if not train:
        updates.eval()
    return model, updates, lora


def randomise(updates: LowRanks) -> None:
    torch.manual_seed(0)
    with torch.no_grad():
        for value in updates.parameters():
            value.normal_(std=0.1)


@pytest.mark.parametrize("mlp", [False, True])
@pytest.mark.parametrize("arch", STYLES)
def test_nothing_changes_before_training_and_merging_changes_nothing_after(arch: str, mlp: bool) -> None:
    given = samples(arch)
    pixels = stacked(given)
    model, updates, lora = wrapped(arch, mlp=mlp)
    with torch.no_grad():
        before = features(encoder(arch).module(), pixels, TEXTS, encoder(arch))
        first = features(model, pixels, TEXTS, encoder(arch))
        randomise(updates)
        after = features(model, pixels, TEXTS, encoder(arch))
    lora.state_ = towers.to_numpy(updates.state())
    merged = lora.attach(encoder(arch))
    joint, texts = merged.encode_images(pixels)[0], merged.encode_texts(TEXTS)
    for old, same, new, plain in zip(before, first, after, (joint, texts), strict=True):
        np.testing.assert_allclose(same, old, atol=1e-6)
        np.testing.assert_allclose(plain, new, atol=1e-5)
        assert (new - old).abs().max() > 1e-3, "the updates do something in either tower"


def test_every_q_k_and_v_of_both_towers_and_nothing_else_is_updated() -> None:
    _, updates, _ = wrapped("tiny-vit")
    held = updates.state()
    layers = [
        f"{tower}transformer.resblocks.{layer}.attn.in_proj_weight" for tower in ("", "visual.") for layer in (0, 1)
    ]
    assert set(held) == {f"{layer}/{block}.{which}" for layer in layers for block in "qkv" for which in "AB"}
    assert sum(value.numel() for value in held.values()) == 2 * 2 * 2 * 3 * (64 + 64)  # towers, layers, r, q k v
    assert all(torch.count_nonzero(value) == 0 for name, value in held.items() if name.endswith("B"))
    downs = [value for name, value in held.items() if name.endswith("A")]
    assert all(0.8 / 8 < value.abs().max() <= 1 / 8 for value in downs), "uniform within 1 / sqrt(64)"
    assert not torch.equal(downs[0], downs[1])


def test_updates_of_mlps_begin_within_their_inputs_width() -> None:
    held = wrapped("tiny-vit", mlp=True)[1].state()
    for name, wide in (("c_fc", 64), ("c_proj", 256)):
        value = held[f"transformer.resblocks.0.mlp.{name}.weight.A"]
        assert value.shape == (2, wide) and 0.8 * wide**-0.5 < value.abs().max() <= wide**-0.5


@pytest.mark.parametrize(("method", "lr"), [(Lora, 2e-4), (Svd, 5e-4)])
def test_the_settings_of_the_papers(method: type[WeightAdapter], lr: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a fit asks of the training loop, whose AdamW and cosine test_finetune.py holds."""
    asked: dict[str, Any] = {}

    def train(_: Any, __: Any, ___: Any, **settings: Any) -> list[float]:
        asked.update(settings)
        return [0.0]

    monkeypatch.setattr(weights, "train", train)
    method().fit(samples("tiny-vit", 2))
    schedule = {"steps": 1000, "lr": lr, "min_lr": 1e-6}
    assert asked == {**schedule, "weight_decay": 1e-2, "batch_size": 32, "device": "cpu"}
    assert Lora().params.items() >= {"r": 2, "alpha": 1.0, "dropout": 0.25, "encoder": "both", "mlp": False}.items()


@pytest.mark.parametrize("text", [False, True])
def test_the_loss_is_cross_entropy_of_scale_f_t(text: bool) -> None:
    """In float64: -log softmax(scale * f . t) of the label; t is the model's as it is now where the texts are trained,
    the mean of each class's prompts."""
    given = samples("tiny-vit", 2)
    model: Any = encoder("tiny-vit").module()
    same: Any = encoder("tiny-vit").module()
    loss = towers.class_loss(model, encoder("tiny-vit"), given.task, text=text)
    with torch.no_grad():
        for each in (model, same):  # as they are now they have other texts
            each.ln_final.weight.add_(torch.linspace(-0.5, 0.5, 64))
        pixels = torch.from_numpy(stacked(given))
        found = float(loss(pixels, torch.from_numpy(given.labels)))
        images = same.encode_image(pixels, normalize=True).double().numpy()
        told = [same.encode_text(encoder("tiny-vit").tokenize(prompts)).double().numpy() for prompts in PROMPTS]
    means = np.stack([_mean(rows / np.linalg.norm(rows, axis=1, keepdims=True)) for rows in told])
    assert np.abs(means - given.task.text).max() > 0.01
    logits = given.task.scale * images @ (means if text else given.task.text.astype(np.float64)).T
    mass = np.log(np.exp(logits).sum(axis=1))
    assert found == pytest.approx((mass - logits[range(6), given.labels]).mean(), rel=1e-5)


@pytest.mark.parametrize("tower", ["vision", "text", "both"])
def test_the_texts_are_computed_anew_where_their_tower_is_trained(tower: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[bool] = []
    real = towers.class_loss

    def class_loss(*args: Any, text: bool) -> Any:
        made.append(text)
        return real(*args, text=text)

    monkeypatch.setattr(towers, "class_loss", class_loss)
    Lora(steps=1, encoder=tower).fit(samples("tiny-vit", 1))
    assert made == [tower != "vision"]


@pytest.mark.parametrize(("tower", "prefix"), [("vision", "visual."), ("text", "transformer.")])
def test_one_tower(tower: str, prefix: str) -> None:
    _, updates, _ = wrapped("tiny-vit", encoder=tower)
    assert all(name.startswith(prefix) for name in updates.state())


def test_coca_is_not_adapted_where_it_writes_captions() -> None:
    _, updates, _ = wrapped("tiny-coca", mlp=True)
    assert {name.partition(".")[0] for name in updates.state()} == {"visual", "text"}
    assert not any("attn_pool" in name for name in updates.state())


def test_the_formula_by_hand() -> None:
    """One layer's attention in float64, written from the paper: h = W x + alpha / r * B A x, for q, k and v."""
    _, updates, lora = wrapped("tiny-vit", alpha=3.0)
    randomise(updates)
    lora.state_ = towers.to_numpy(updates.state())
    name = "visual.transformer.resblocks.1.attn"
    original = encoder("tiny-vit").module().get_submodule(name)
    model, again, _ = wrapped("tiny-vit", alpha=3.0)
    with torch.no_grad():
        for new, old in zip(again.parameters(), updates.parameters(), strict=True):
            new.copy_(old)
    x = np.random.default_rng(0).standard_normal((2, 5, 64))
    found = model.get_submodule(name)(*[torch.from_numpy(x).float()] * 3, need_weights=False)[0]
    state = {key: value.astype(np.float64) for key, value in lora.state_.items()}
    weight, bias = (getattr(original, f"in_proj_{kind}").detach().double().numpy() for kind in ("weight", "bias"))
    heads = []
    for block, letter in enumerate("qkv"):
        rows = slice(64 * block, 64 * block + 64)
        update = state[f"{name}.in_proj_weight/{letter}.B"] @ state[f"{name}.in_proj_weight/{letter}.A"]
        heads.append((x @ (weight[rows] + 3.0 / 2 * update).T + bias[rows]).reshape(2, 5, -1, 64 // original.num_heads))
    q, k, v = heads
    scores = np.einsum("nlhd,nmhd->nhlm", q, k) / math.sqrt(q.shape[-1])
    mass = np.exp(scores - scores.max(axis=-1, keepdims=True))
    out = np.einsum("nhlm,nmhd->nlhd", mass / mass.sum(axis=-1, keepdims=True), v).reshape(2, 5, 64)
    last = original.out_proj
    expected = out @ last.weight.detach().double().numpy().T + last.bias.detach().double().numpy()
    np.testing.assert_allclose(found.detach().numpy(), expected, atol=2e-6)


def test_dropout_is_on_the_inputs_of_the_updates_alone() -> None:
    """In training the mean over many draws is what comes without dropout; with B = 0 there is nothing to drop."""
    model, updates, _ = wrapped("tiny-vit", train=True, encoder="vision", dropout=0.5)
    linear = next(iter(updates._held.values()))
    x = torch.randn(1, 64)
    pixels = torch.from_numpy(stacked(samples("tiny-vit")))
    with torch.no_grad():
        assert torch.equal(model.encode_image(pixels), model.encode_image(pixels))
        randomise(updates)
        assert not torch.equal(model.encode_image(pixels), model.encode_image(pixels))
        draws = linear(x.expand(20000, 64))
        linear.eval()
        np.testing.assert_allclose(draws.mean(dim=0), linear(x)[0], atol=0.02)
    assert not torch.equal(draws[0], draws[1]), "every token has its own"


@pytest.mark.parametrize("arch", ["tiny-vit", "tiny-sigmoid"])
def test_it_learns(arch: str) -> None:
    given, rest = samples(arch), samples(arch, 3, prefix="other")
    lora = Lora(steps=16, lr=1e-2, batch=6).fit(given, rest)
    facts = lora.facts_
    assert facts["loss"]["last"] < 0.85 * facts["loss"]["first"]
    assert facts["steps"] == 16 and facts["trained"] == sum(value.size for value in lora.state_.values())
    attached = lora.attach(encoder(arch))
    assert attached.identity.digest != encoder(arch).identity.digest
    assert attached.identity.name.endswith("+lora")
    text = np.stack([_mean(attached.encode_texts(list(prompts))) for prompts in PROMPTS])
    hits = (attached.encode_images(stacked(rest))[0] @ text.T).argmax(axis=1) == rest.labels
    assert facts["validation_accuracy"] == pytest.approx(hits.mean())


def _mean(rows: np.ndarray) -> np.ndarray:
    made: np.ndarray = rows.mean(axis=0) / np.linalg.norm(rows.mean(axis=0))
    return made


def test_the_same_samples_in_any_order_train_the_same() -> None:
    given = samples("tiny-vit")
    one, other = (Lora(steps=3, batch=5).fit(order).state_ for order in (given, shuffled(given)))
    assert one.keys() == other.keys()
    again = Lora(steps=3, batch=5).fit(given).state_
    assert all(np.array_equal(one[name], again[name]) for name in one)
    assert all(np.array_equal(one[name], other[name]) for name in one)


def test_with_nothing_to_choose_it_is_trained_once_on_everything() -> None:
    given, heard = samples("tiny-vit"), list[int]()
    with watching(lambda step, *_: heard.append(step)):
        adapter, how = selection.fit(Lora(steps=2), given)
    assert heard == [1, 2] and how == Selection("fixed", 0, None)
    alone = Lora(steps=2).fit(given).state_
    assert all(np.array_equal(value, alone[name]) for name, value in adapter.state_.items())
    rest = samples("tiny-vit", 3, prefix="other")
    tried, how = selection.fit(Lora(steps=2), given, rest)
    assert (how.on, how.samples) == ("validation", 9)
    assert how.accuracy == pytest.approx(tried.facts_["validation_accuracy"], abs=1e-6)


def test_another_seed_trains_another() -> None:
    one, other = (Lora(steps=2).fit(samples("tiny-vit", seed=seed)).state_ for seed in (0, 1))
    assert not np.array_equal(
        one["transformer.resblocks.0.attn.in_proj_weight/q.A"], other["transformer.resblocks.0.attn.in_proj_weight/q.A"]
    )


def test_torch_is_left_as_it_was() -> None:
    torch.manual_seed(5)
    expected, threads = torch.rand(3), torch.get_num_threads()
    torch.manual_seed(5)
    Lora(steps=1).fit(samples("tiny-vit", 1))
    assert torch.equal(torch.rand(3), expected) and torch.get_num_threads() == threads


def test_saved_and_loaded_it_is_the_same_model(tmp_path: Path) -> None:
    given = samples("tiny-vit")
    lora = Lora(steps=3, lr=1e-2).fit(given)
    attached = lora.attach(encoder("tiny-vit"))
    files.save(tmp_path / "a", lora, encoder("tiny-vit").identity, {})
    saved = files.load(tmp_path / "a")
    assert saved.adapter.attach(encoder("tiny-vit")).identity == attached.identity
    assert json.loads((tmp_path / "a" / "adapter.json").read_text())["params"]["steps"] == 3
    saved.require(encoder("tiny-vit").identity)
    with pytest.raises(ClipkitError, match="was made for"):
        saved.require(encoder("tiny-coca").identity)
    with pytest.raises(ValueError, match="it lacks visual"):
        saved.adapter.attach(encoder("tiny-sigmoid"))


def test_blending_is_of_weights() -> None:
    lora = Lora(steps=2, lr=1e-2).fit(samples("tiny-vit"))
    base = encoder("tiny-vit")
    name = "visual.transformer.resblocks.0.attn.in_proj_weight"
    held = []
    for blend in (0.0, 0.5, 1.0):
        lora.blend = blend
        attached: Any = lora.attach(base)
        held.append(attached.module().state_dict()[name])
        assert (attached is base) == (blend == 0)
    torch.testing.assert_close(held[1], (held[0] + held[2]) / 2)
    assert not torch.equal(held[0], held[2])
    lora.blend = 0.0
    given = samples("tiny-vit")
    images = Features(base.encode_images(stacked(given))[0])
    assert np.array_equal(lora.logits(images), given.task.zero_shot(images))
    assert lora.fold() is None


@pytest.mark.parametrize("arch", STYLES)
def test_the_merged_model_is_a_plain_one_of_open_clip(arch: str, tmp_path: Path) -> None:
    lora = Lora(steps=1, lr=1e-2).fit(samples(arch, 1))
    attached: Any = lora.attach(encoder(arch))
    attached.save_model(tmp_path / "merged")
    pixels = stacked(samples(arch, 1))
    expected = attached.encode_images(pixels)[0]
    again = load(f"{tmp_path}/merged/")
    assert again.identity.digest == attached.identity.digest
    assert np.array_equal(again.encode_images(pixels)[0], expected)
    theirs: Any = open_clip.create_model(f"local-dir:{tmp_path}/merged").eval()
    with torch.no_grad():
        found = theirs.encode_image(torch.from_numpy(pixels), normalize=True)
    np.testing.assert_allclose(found, expected, atol=2e-6)


def test_texts_behind_the_end_are_not_computed_and_change_nothing() -> None:
    task = samples("tiny-vit").task
    model: Any = encoder("tiny-vit").module()
    classes = towers.ClassTexts(model, encoder("tiny-vit"), task)
    assert classes._tokens.shape[1] == 8  # of 77: "a blue thing, of many" and its ends
    with torch.no_grad():
        np.testing.assert_allclose(classes(), task.text, atol=1e-6)


@pytest.mark.parametrize("arch", STYLES)
def test_many_prompts_go_in_parts_with_the_same_gradient(arch: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def gradients() -> list[torch.Tensor]:
        model, updates, _ = wrapped(arch, encoder="text", train=True, dropout=0.0)
        torch.manual_seed(0)
        randomise(updates)
        classes = towers.ClassTexts(model, encoder(arch), samples(arch).task)()
        np.testing.assert_allclose(classes.norm(dim=-1).detach(), 1, atol=1e-6)
        functional.mse_loss(classes, torch.ones_like(classes)).backward()  # type: ignore[no-untyped-call]
        return [value.grad for value in updates.parameters() if value.grad is not None]

    whole = gradients()
    monkeypatch.setattr(towers, "_TEXTS", 3)
    for part, expected in zip(gradients(), whole, strict=True):
        torch.testing.assert_close(part, expected, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize(("arch", "tower"), [("tiny-resnet", "ModifiedResNet"), ("tiny-convnext", "ConvNeXt")])
def test_towers_without_attention_are_named(arch: str, tower: str) -> None:
    with pytest.raises(UsageError, match=f"vision tower .{tower}. has no layers") as refused:
        Lora(steps=1).fit(samples(arch, 1))
    assert "encoder=text" in str(refused.value.hint)
    assert Lora(steps=1, encoder="text").fit(samples(arch, 1)).state_


def test_a_layer_that_reads_its_weight_by_itself_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """As timm's EVA does where biases of q, k and v are apart."""
    from timm.layers import Attention

    def forward(self: Any, x: torch.Tensor, **_: Any) -> torch.Tensor:
        functional.linear(x, self.qkv.weight, self.qkv.bias)
        return x

    monkeypatch.setattr(Attention, "forward", forward)
    monkeypatch.setattr("timm.models.vision_transformer.Attention.forward", forward)
    for tower in ("both", "vision"):
        with pytest.raises(ClipkitError, match="have no part in what the model computes"):
            Lora(steps=2, encoder=tower).fit(samples("tiny-sigmoid", 1))


def test_only_open_clip_models() -> None:
    lite = load("lite")
    given = samples("tiny-vit", 1)
    for model, said in ((lite, "this is lite"), (None, "this is no model")):
        with pytest.raises(UsageError, match=said):
            Lora(steps=1).fit(replace(given, task=replace(given.task, encoder=model)))


def test_something_is_left_of_the_inputs() -> None:
    with pytest.raises(UsageError, match="dropout of lora is below 1"):
        Lora(steps=1, dropout=1.0).fit(samples("tiny-vit", 1))


def test_steps_are_500_a_shot() -> None:
    from clipkit.methods.adapters.weights import _steps

    assert [_steps(samples("tiny-vit", shots)) for shots in (1, 4, 16, 40)] == [500, 2000, 8000, 8000]


def test_importing_it_imports_no_torch() -> None:
    program = "import sys, clipkit.methods.adapters.lora, clipkit.methods.adapters.svd; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
