"""What learns and what does not: locked towers, low-rank updates and their merging."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load, save

from clipkit.errors import UsageError
from clipkit.methods import LOSSES
from clipkit.models.load import load as load_model
from clipkit.models.open_clip import OpenClipEncoder
from clipkit.training.loop import Trainer
from clipkit.training.settings import Settings
from clipkit.training.student import Student
from tests.training.students import batch, encoder, student


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> dict[str, OpenClipEncoder]:
    """Models with weights, as far as anyone can tell."""
    found = {}
    for arch in ("small", "small-custom", "small-resnet", "small-coca"):
        folder = tmp_path_factory.mktemp(arch)
        encoder(arch).save_model(folder)
        model = load_model(f"{folder}/", device="cpu", precision="f32")
        assert isinstance(model, OpenClipEncoder)
        found[arch] = model
    return found


def trained(model: OpenClipEncoder, steps: int = 2, **settings: Any) -> Trainer:
    options = Settings(steps=steps, lr=0.01, **settings)
    loss = LOSSES.get(options.loss).from_settings({})
    trainer = Trainer(Student(model, options, loss), loss, options)
    batches = (batch(trainer.student, double=False, seed=number) for number in range(steps))
    trainer.run(batches, lambda step: None)
    return trainer


def changed(model: OpenClipEncoder, weights: dict[str, torch.Tensor]) -> set[str]:
    before = model.module().state_dict()
    assert before.keys() == weights.keys()
    return {name for name, value in before.items() if not torch.equal(value, weights[name])}


@pytest.mark.parametrize("arch", ["small", "small-custom", "small-resnet", "small-coca"])
def test_a_locked_image_tower_stays_bit_equal(learned: dict[str, OpenClipEncoder], arch: str) -> None:
    trainer = trained(learned[arch], lock_image=True, loss="coca" if arch == "small-coca" else "clip")
    moved = changed(learned[arch], trainer.weights())
    assert not any(name.startswith("visual.") for name in moved)  # a ResNet's running means among them
    assert {"logit_scale"} < moved
    assert any(name.endswith("token_embedding.weight") for name in moved)
    assert not trainer.student.model.visual.training


@pytest.mark.parametrize("arch", ["small", "small-custom", "small-resnet"])
def test_a_locked_text_tower_stays_bit_equal(learned: dict[str, OpenClipEncoder], arch: str) -> None:
    moved = changed(learned[arch], trained(learned[arch], lock_text=True).weights())
    assert moved
    assert all(name.startswith("visual.") or name == "logit_scale" for name in moved)


def test_what_is_locked_has_no_gradients_and_no_state(learned: dict[str, OpenClipEncoder]) -> None:
    trainer = trained(learned["small"], lock_image=True)
    outputs = trainer.student.outputs(batch(trainer.student, double=False))
    assert not outputs.image.requires_grad
    assert outputs.text.requires_grad
    assert not any("visual." in name for name in trainer.state())


@pytest.mark.parametrize("arch", ["small", "small-custom", "small-coca"])
def test_low_rank_updates_merge_into_what_they_computed(learned: dict[str, OpenClipEncoder], arch: str) -> None:
    trainer = trained(learned[arch], lora_rank=3)
    weights = trainer.weights()
    merged = learned[arch].module()
    merged.load_state_dict(weights)
    shown = batch(trainer.student, double=False, seed=9)
    with torch.no_grad():
        wrapped = trainer.student.outputs(shown)
        image = merged.encode_image(shown.pixels, normalize=True)  # type: ignore[operator]
        text = merged.encode_text(shown.tokens[:, 0], normalize=True)  # type: ignore[operator]
        before = learned[arch].module().encode_image(shown.pixels, normalize=True)  # type: ignore[operator]
    torch.testing.assert_close(image, wrapped.image, rtol=0, atol=2e-6)
    torch.testing.assert_close(text, wrapped.caption, rtol=0, atol=2e-6)
    assert float((image - before).abs().max()) > 1e-3
    moved = changed(learned[arch], weights)
    ends = ("attn.in_proj_weight", "attn.out_proj.weight", "c_fc.weight", "c_proj.weight")
    assert moved == {"logit_scale"} | {
        name for name in weights if "resblocks" in name and name.endswith(ends) and "text_decoder" not in name
    }
    assert all(value.numel() < 32 * 32 * 4 for name, value in trainer.state().items() if name.startswith("student:"))


def test_low_rank_beside_a_locked_tower(learned: dict[str, OpenClipEncoder]) -> None:
    moved = changed(learned["small-resnet"], trained(learned["small-resnet"], lora_rank=2, lock_image=True).weights())
    assert moved
    assert not any(name.startswith("visual.") for name in moved)


@pytest.mark.parametrize("settings", [{}, {"ema": 0.9}, {"lora_rank": 2, "ema": 0.9}, {"lock_image": True}])
@pytest.mark.parametrize("precision", ["f32", "bf16"])
def test_going_on_is_exact(learned: dict[str, OpenClipEncoder], settings: dict[str, Any], precision: str) -> None:
    """What was saved in the middle, through a file, gives the losses and weights of the run that didn't stop."""
    options = Settings(steps=4, lr=0.01, clip_norm=0.5, precision=precision, **settings)  # type: ignore[arg-type]
    loss = LOSSES.get("clip").from_settings({})
    model = learned["small"]
    batches = [batch(Student(model, options, loss), double=False, seed=number) for number in range(4)]

    whole = Trainer(Student(model, options, loss), loss, options)
    heard: list[float] = []
    saved: list[bytes] = []

    def hear(step: Any) -> None:
        heard.append(step.loss)
        if step.step == 2:
            saved.append(save({name: value.contiguous() for name, value in whole.state().items()}))

    whole.run(batches, hear)
    again = Trainer(Student(model, options, loss), loss, options)
    again.load(load(saved[0]))
    losses: list[float] = []
    again.run(batches[2:], lambda step: losses.append(step.loss), done=2)
    assert losses == heard[2:]
    assert all(torch.equal(value, again.weights()[name]) for name, value in whole.weights().items())
    assert len(set(heard)) == 4


def test_refusals(learned: dict[str, OpenClipEncoder]) -> None:
    with pytest.raises(UsageError, match="nothing is left to train"):
        trained(learned["small"], lock_image=True, lock_text=True)
    with pytest.raises(UsageError, match="random weights"):
        student(lock_image=True)
    with pytest.raises(UsageError, match="random weights"):
        student(lora_rank=2)
    with pytest.raises(UsageError, match="no layers") as raised:
        trained(learned["small-resnet"], lora_rank=2)
    assert "--lock-image" in str(raised.value.hint)


def test_a_state_of_other_settings_is_refused(learned: dict[str, OpenClipEncoder]) -> None:
    plain, averaged = trained(learned["small"]), trained(learned["small"], ema=0.9)
    low, f16 = trained(learned["small"], lora_rank=2), trained(learned["small"], steps=0, precision="f16")
    for one, other in ((plain, averaged), (averaged, plain), (plain, low), (low, plain), (plain, f16), (f16, plain)):
        with pytest.raises(ValueError, match=r"."):
            one.load(other.state())


def test_what_a_new_model_starts_with() -> None:
    siglip = student("siglip", double=False).model
    assert float(siglip.logit_scale.detach().exp()) == pytest.approx(10)
    assert float(siglip.logit_bias.detach()) == -10
    cloob = student("infoloob", double=False)
    assert float(cloob.scale.detach()) == pytest.approx(30)
    assert "logit_scale" not in cloob.parameters()


def test_a_learned_model_keeps_its_scale_but_for_a_fixed_one(
    learned: dict[str, OpenClipEncoder], tmp_path: Path
) -> None:
    encoder("small", -10.0).save_model(tmp_path)
    biased = load_model(f"{tmp_path}/", device="cpu", precision="f32")
    assert isinstance(biased, OpenClipEncoder)
    loss = LOSSES.get("siglip").from_settings({})
    assert float(Student(biased, Settings(), loss).scale.detach()) == pytest.approx(1 / 0.07)
    fixed = LOSSES.get("infoloob").from_settings({})
    assert float(Student(learned["small"], Settings(), fixed).scale) == pytest.approx(30)
