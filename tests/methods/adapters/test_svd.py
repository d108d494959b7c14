"""CLIP-SVD in tiny random towers of each family."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch

from clipkit.methods.adapters import files, singular, towers
from clipkit.methods.adapters.singular import SingularValues
from clipkit.methods.adapters.svd import Svd
from clipkit.models.load import load
from tests.methods.adapters.tower_tasks import PROMPTS, STYLES, encoder, features, one_thread, samples, stacked

__all__ = ["one_thread"]  # a fixture of every test here
TEXTS = [text for prompts in PROMPTS for text in prompts]


def wrapped(arch: str, **params: Any) -> tuple[Any, SingularValues, Svd]:
    svd = Svd(**params)
    model = encoder(arch).module().requires_grad_(False)
    return model, svd._wrap(model, samples(arch).task), svd


@pytest.mark.parametrize("arch", STYLES)
def test_nothing_changes_before_training_and_merging_changes_nothing_after(arch: str) -> None:
    pixels = stacked(samples(arch))
    model, values, svd = wrapped(arch)
    with torch.no_grad():
        before = features(encoder(arch).module(), pixels, TEXTS, encoder(arch))
        first = features(model, pixels, TEXTS, encoder(arch))
        torch.manual_seed(0)
        for value in values.parameters():
            value.normal_(std=0.1)
        values.refresh()
        after = features(model, pixels, TEXTS, encoder(arch))
    svd.state_ = towers.to_numpy(values.state())
    merged = svd.attach(encoder(arch))
    joint, texts = merged.encode_images(pixels)[0], merged.encode_texts(TEXTS)
    for old, same, new, plain in zip(before, first, after, (joint, texts), strict=True):
        np.testing.assert_allclose(same, old, atol=1e-6)
        np.testing.assert_allclose(plain, new, atol=1e-5)
        assert (new - old).abs().max() > 1e-3, "the values do something in either tower"


def test_the_weights_are_u_s_plus_d_v() -> None:
    """In float64, by numpy, of q alone and of an MLP: W' = U (S + d) V^T, S descending."""
    _, values, svd = wrapped("tiny-vit")
    with torch.no_grad():
        for value in values.parameters():
            value.copy_(torch.linspace(0.5, -0.5, len(value)))
    svd.state_ = towers.to_numpy(values.state())
    attached: Any = svd.attach(encoder("tiny-vit"))
    old, new = (model.module().state_dict() for model in (encoder("tiny-vit"), attached))
    for name, rows in (
        ("visual.transformer.resblocks.0.attn.in_proj_weight", slice(64)),
        ("transformer.resblocks.1.mlp.c_fc.weight", slice(None)),
        ("visual.transformer.resblocks.1.attn.out_proj.weight", slice(None)),
    ):
        left, singular, right = np.linalg.svd(old[name][rows].double().numpy(), full_matrices=False)
        expected = left @ np.diag(singular + np.linspace(0.5, -0.5, len(singular))) @ right
        np.testing.assert_allclose(new[name][rows].numpy(), expected, atol=2e-6)
    unchanged = ("visual.proj", "token_embedding.weight", "ln_final.weight", "visual.conv1.weight", "logit_scale")
    assert all(torch.equal(old[name], new[name]) for name in unchanged)


def test_all_of_attention_and_mlps_in_both_towers_is_trained() -> None:
    _, values, _ = wrapped("tiny-vit")
    layers = [f"{tower}transformer.resblocks.{layer}" for tower in ("", "visual.") for layer in (0, 1)]
    parts = [*(f"attn.in_proj_weight/{block}" for block in "qkv"), "attn.out_proj.weight", "mlp.c_fc.weight"]
    expected = {f"{layer}.{part}.d" for layer in layers for part in [*parts, "mlp.c_proj.weight"]}
    assert set(values.state()) == expected
    assert all(value.shape == (64,) for value in values.state().values())


def test_equal_singular_values_are_no_trouble() -> None:
    """An orthogonal matrix has 1 throughout; its factors are taken the same way when it is merged."""
    model: Any = encoder("tiny-vit").module()
    with torch.no_grad():
        for layer in model.transformer.resblocks:
            layer.attn.out_proj.weight.copy_(torch.eye(64))
    base = encoder("tiny-vit").rebuilt(model, "orthogonal")
    again = base.module().requires_grad_(False)
    svd = Svd()
    held = svd._wrap(again, samples("tiny-vit").task)
    with torch.no_grad():
        for value in held.parameters():
            value.copy_(torch.linspace(0, 0.3, len(value)))
        held.refresh()
        expected = again.encode_text(base.tokenize(TEXTS), normalize=True)
    svd.state_ = towers.to_numpy(held.state())
    np.testing.assert_allclose(svd.attach(base).encode_texts(TEXTS), expected, atol=1e-5)


def test_the_factors_do_not_hang_on_the_number_of_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was learned for them on one machine must hold on another, and torch keeps its threads."""
    model: Any = encoder("tiny-vit").module()
    places = towers.weights(model, "both", {"qkv", "mlp"})
    before, found = torch.get_num_threads(), []
    for cores in (1, 2):
        monkeypatch.setattr(singular, "available_cores", lambda cores=cores: cores)
        torch.set_num_threads(cores)
        found.append(singular.factors(places))
        assert torch.get_num_threads() == cores
    torch.set_num_threads(before)
    one, two = found
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name][side], two[name][side]) for name in one for side in (0, 1))


@pytest.mark.parametrize("arch", ["tiny-vit", "tiny-coca"])
def test_it_learns(arch: str) -> None:
    svd = Svd(steps=15, lr=1e-2, batch=6).fit(samples(arch), samples(arch, 3, prefix="other"))
    assert svd.facts_["loss"]["last"] < 0.7 * svd.facts_["loss"]["first"]
    assert svd.facts_["trained"] == sum(value.size for value in svd.state_.values())
    assert svd.facts_["validation_accuracy"] > 0.5


def test_weight_decay_pulls_towards_the_models_own_values() -> None:
    """Without a gradient d stays 0; decay of S itself would shrink the model."""
    _, values, _ = wrapped("tiny-vit")
    descent = torch.optim.AdamW(values.parameters(), lr=0.1, weight_decay=0.5)
    for value in values.parameters():
        value.grad = torch.zeros_like(value)
    descent.step()
    assert all(torch.count_nonzero(value) == 0 for value in values.parameters())


def test_a_tower_without_attention_is_trained_in_its_mlps() -> None:
    svd = Svd(steps=1, encoder="vision").fit(samples("tiny-convnext", 1))
    assert all(".mlp.fc" in name for name in svd.state_)


def test_saved_merged_and_loaded_it_is_the_same_model(tmp_path: Path) -> None:
    svd = Svd(steps=3, lr=1e-2).fit(samples("tiny-sigmoid", 1))
    base = encoder("tiny-sigmoid")
    attached: Any = svd.attach(base)
    files.save(tmp_path / "a", svd, base.identity, {})
    adapter = files.load(tmp_path / "a").adapter
    assert adapter.attach(base).identity == attached.identity
    with pytest.raises(ValueError, match="it lacks visual"):
        adapter.attach(encoder("tiny-vit"))
    attached.save_model(tmp_path / "merged")
    pixels = stacked(samples("tiny-sigmoid", 1))
    expected = attached.encode_images(pixels)[0]
    assert np.array_equal(load(f"{tmp_path}/merged/").encode_images(pixels)[0], expected)
    theirs: Any = open_clip.create_model(f"local-dir:{tmp_path}/merged").eval()
    with torch.no_grad():
        np.testing.assert_allclose(theirs.encode_image(torch.from_numpy(pixels), normalize=True), expected, atol=2e-6)
