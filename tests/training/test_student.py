"""What the towers give for a batch: captions that are there, and no longer than they are."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from clipkit.errors import UsageError
from clipkit.methods import LOSSES
from clipkit.models.load import load
from clipkit.training.distributed import Alone
from clipkit.training.settings import Settings
from clipkit.training.student import Student
from clipkit.training.text_tower import encode_texts
from tests.training.students import TEXTS, WORDS, batch, encoder, student


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def gradients(model: Any, features: torch.Tensor) -> dict[str, torch.Tensor]:
    """Of a weighted sum of features."""
    weights = torch.linspace(-1, 1, features.numel(), dtype=features.dtype).view_as(features)
    model.zero_grad()
    (features * weights).sum().backward()
    return {name: value.grad for name, value in model.named_parameters() if value.grad is not None}


@pytest.mark.parametrize("pooled", ["argmax", "eos"])
@pytest.mark.parametrize("arch", ["small", "small-custom"])
def test_what_is_behind_the_longest_caption_is_not_computed(arch: str, pooled: str) -> None:
    model: Any = encoder(arch).module().double().train()
    tower = getattr(model, "text", model)
    if pooled == "eos":  # as in models whose end is not the largest token
        name = "text_" if tower is model else ""
        setattr(tower, f"{name}pool_type", "eos")
        setattr(tower, f"{name}eos_id", WORDS - 1)
    tokens = encoder(arch).tokenize(TEXTS)
    seen = []
    tower.ln_final.register_forward_hook(lambda _, args, __: seen.append(args[0].shape[1]))
    expected = model.encode_text(tokens)
    slopes = gradients(model, expected)
    found = encode_texts(model, tokens, "cpu")
    longest = int((tokens != 0).sum(1).max())
    assert seen == [12, longest] and longest < 12
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-14)
    again = gradients(model, found)
    assert again.keys() == slopes.keys()
    for name, value in slopes.items():
        torch.testing.assert_close(again[name], value, rtol=1e-10, atol=1e-13, msg=name)
    assert isinstance(tower.positional_embedding, torch.nn.Parameter) and len(tower.positional_embedding) == 12


@pytest.mark.parametrize("arch", ["small-last", "small-coca"])
def test_where_the_end_matters_all_of_it_is_computed(arch: str) -> None:
    model: Any = encoder(arch).module().train()
    tokens = encoder(arch).tokenize(TEXTS)
    assert torch.equal(encode_texts(model, tokens, "cpu"), model.encode_text(tokens, normalize=False))


def test_captions_that_are_not_there_do_not_go_through_the_model() -> None:
    learns = student("hq-clip")
    pairs = batch(learns)
    seen = []
    learns.model.token_embedding.register_forward_hook(lambda _, args, __: seen.append(len(args[0])))
    outputs = learns.outputs(pairs)
    there = [*pairs.present.flatten(), *pairs.negatives_present.flatten()]  # type: ignore[union-attr]
    assert seen == [sum(map(int, there))] == [16]
    expected = learns.model.encode_text(pairs.tokens.flatten(0, 1), normalize=True).view(6, 2, 16)
    torch.testing.assert_close(outputs.text, expected * pairs.present[:, :, None])
    assert outputs.negatives is not None and not outputs.negatives[2].any()
    torch.testing.assert_close(outputs.negatives.norm(dim=-1)[:2], torch.ones(2, 1, dtype=torch.float64))


def test_coca_is_what_open_clip_computes() -> None:
    """The loss with its own model's whole output, padding and all, gives the same, gradients included."""
    from open_clip import CoCaLoss

    learns = student("coca")
    pairs = batch(learns)
    parts = learns.loss(learns.outputs(pairs), Alone())
    parts["loss"].backward()
    found = {name: value.grad for name, value in learns.parameters().items()}
    learns.model.zero_grad()
    theirs = learns.model(pairs.pixels, pairs.tokens[:, 0])
    contrastive, caption = CoCaLoss(2.0, 1.0)(**theirs)
    torch.testing.assert_close(parts["contrastive"], contrastive, rtol=1e-12, atol=0)
    torch.testing.assert_close(parts["caption"], caption, rtol=1e-12, atol=0)
    (contrastive + caption).backward()
    for name, value in learns.parameters().items():
        torch.testing.assert_close(found[name], value.grad, rtol=1e-9, atol=1e-12, msg=name)
    assert learns.outputs(pairs).logits.shape[1] < theirs["logits"].shape[1]  # type: ignore[union-attr]


@pytest.mark.parametrize("precision", ["bf16", "f16"])
def test_features_are_f32_whatever_is_computed_in(precision: str) -> None:
    learns = student("clip", double=False, precision=precision)
    outputs = learns.outputs(batch(learns, double=False))
    exact = student("clip", double=False).outputs(batch(learns, double=False))
    assert outputs.image.dtype == outputs.text.dtype == torch.float32
    torch.testing.assert_close(outputs.image.norm(dim=-1), torch.ones(6))
    torch.testing.assert_close(outputs.image, exact.image, rtol=0, atol=0.05)
    assert not torch.equal(outputs.image, exact.image)


def test_a_teacher_says_what_it_says_anywhere() -> None:
    lite = load("lite")
    learns = student("distill", teacher=lite, double=False)
    height, width = lite.identity.preprocess.size
    pixels = torch.rand(6, 3, height, width, generator=torch.Generator().manual_seed(0))
    pairs = replace(batch(learns, double=False), teacher_pixels=pixels)
    teacher = learns.outputs(pairs).teacher
    assert teacher is not None
    np.testing.assert_array_equal(teacher.image.numpy(), lite.encode_images(pixels.numpy())[0])
    np.testing.assert_array_equal(teacher.caption.numpy(), lite.encode_texts(pairs.texts))
    assert float(teacher.scale) == pytest.approx(lite.logit_scale)
    assert not teacher.image.requires_grad
    assert torch.isfinite(learns.loss(learns.outputs(pairs), Alone())["loss"])


def test_a_model_that_is_its_own_teacher() -> None:
    """The same weights, through another path: the distance to itself is 0, but for f32's rounding."""
    learns = student("distill", "small", teacher=encoder("small"), double=False)
    outputs = learns.outputs(batch(learns, double=False))
    assert outputs.teacher is not None
    torch.testing.assert_close(outputs.image, outputs.teacher.image, rtol=0, atol=1e-5)
    torch.testing.assert_close(outputs.text, outputs.teacher.text, rtol=0, atol=1e-5)
    logits = outputs.scale * outputs.image @ outputs.caption.T
    entropies = [-(rows.softmax(1) * functional.log_softmax(rows, 1)).sum(1).mean() for rows in (logits, logits.T)]
    said = learns.loss(outputs, Alone())["distillation"]
    torch.testing.assert_close(said, sum(entropies) / 2, rtol=1e-5, atol=0)


def made(loss: str, arch: str, **parts: Any) -> Student:
    return Student(encoder(arch), Settings(loss=loss), LOSSES.get(loss).from_settings({}), **parts)


def test_a_loss_that_the_model_cannot_be_trained_with() -> None:
    with pytest.raises(UsageError, match="small has no decoder"):
        made("coca", "small")
    with pytest.raises(UsageError, match="small was trained without") as raised:
        made("siglip", "small")
    assert "from scratch" in str(raised.value.hint)
    with pytest.raises(UsageError, match="a model to learn from"):
        made("distill", "small")
    with pytest.raises(UsageError, match="no use for a teacher"):
        made("clip", "small", teacher=encoder("small"))


def test_a_scale_that_stays() -> None:
    learns = made("infoloob", "small")
    assert float(learns.scale) == pytest.approx(30)
    assert "logit_scale" not in learns.parameters()
    assert "logit_scale" in made("clip", "small").parameters()


def test_a_new_coca_model_is_random_all_over() -> None:
    """open_clip leaves the decoder's projection to whatever was in that memory."""
    projection = encoder("small-coca").module().text_decoder.text_projection  # type: ignore[union-attr]
    assert float(projection.detach().std()) == pytest.approx(32**-0.5, rel=0.1)  # type: ignore[operator]
