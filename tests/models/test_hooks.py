"""What weight-changing methods do with an open_clip encoder: take its module, change it, build and write another."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch

from clipkit.errors import UsageError
from clipkit.models.load import load
from clipkit.models.open_clip import OpenClipEncoder
from tests.models import tiny

Checkpoint = Callable[[str], Path]
TEXTS = ["a cat", "a photo of a dog."]


@pytest.fixture(scope="module", params=tiny.FAMILIES)
def family(request: pytest.FixtureRequest, checkpoint: Checkpoint) -> tuple[str, OpenClipEncoder]:
    return request.param, encoder_of(request.param, checkpoint)


def encoder_of(arch: str, checkpoint: Checkpoint) -> OpenClipEncoder:
    encoder = load(f"{arch}:{checkpoint(arch)}")
    assert isinstance(encoder, OpenClipEncoder)
    return encoder


def pixels(encoder: OpenClipEncoder, count: int = 3) -> np.ndarray:
    shape = (count, 3, *encoder.identity.preprocess.size)
    return np.random.default_rng(0).standard_normal(shape, dtype=np.float32)


def test_the_module_is_an_intact_copy(family: tuple[str, OpenClipEncoder], checkpoint: Checkpoint) -> None:
    arch, encoder = family
    images = pixels(encoder)
    before = encoder.encode_images(images)[0]
    reference = open_clip.create_model(arch)
    open_clip.load_checkpoint(reference, str(checkpoint(arch)))
    expected, module = reference.state_dict(), encoder.module()
    held = module.state_dict()
    assert held.keys() == expected.keys()
    for name, value in expected.items():  # CoCa begins with memory that nothing was written to: NaN may be in it
        torch.testing.assert_close(held[name], value, rtol=0, atol=0, equal_nan=True)
    with torch.no_grad():
        given: Any = module
        np.testing.assert_allclose(given.encode_image(torch.from_numpy(images), normalize=True), before, atol=2e-6)
        for value in module.parameters():
            value.zero_()
    assert np.array_equal(encoder.encode_images(images)[0], before), "the encoder has its own"


def test_rebuilt_on_the_same_weights_it_is_the_same_model(family: tuple[str, OpenClipEncoder]) -> None:
    _, encoder = family
    again = encoder.rebuilt(encoder.module(), "again")
    assert again.identity.name == "again" and again.identity.digest == encoder.identity.digest
    images = pixels(encoder)
    joint, backbone = encoder.encode_images(images, backbone=True)
    other, behind = again.encode_images(images, backbone=True)
    assert np.array_equal(joint, other) and np.array_equal(encoder.encode_texts(TEXTS), again.encode_texts(TEXTS))
    assert (backbone is None and behind is None) or np.array_equal(backbone, behind)  # type: ignore[arg-type]


def test_rebuilt_on_other_weights_it_is_another(checkpoint: Checkpoint) -> None:
    encoder = encoder_of("tiny-vit", checkpoint)
    model: Any = encoder.module()
    with torch.no_grad():
        model.visual.proj.neg_()
        model.logit_scale.fill_(1.0)
    changed = encoder.rebuilt(model, "changed")
    assert changed.identity.digest != encoder.identity.digest
    assert changed.logit_scale == pytest.approx(np.e)
    images = pixels(encoder)
    assert np.array_equal(changed.encode_images(images)[0], -encoder.encode_images(images)[0])


def test_tokens_are_open_clips(checkpoint: Checkpoint) -> None:
    encoder = encoder_of("tiny-vit", checkpoint)
    assert torch.equal(encoder.tokenize(TEXTS), open_clip.get_tokenizer("tiny-vit")(TEXTS))


def test_a_written_model_is_loaded_by_open_clip_and_by_name(
    family: tuple[str, OpenClipEncoder], tmp_path: Path
) -> None:
    _, encoder = family
    folder = tmp_path / "written"
    encoder.save_model(folder)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["written"]
    again = load(f"{folder}/")
    assert again.identity.digest == encoder.identity.digest and again.identity.name == "written"
    images = pixels(encoder)
    assert np.array_equal(again.encode_images(images)[0], encoder.encode_images(images)[0])
    assert np.array_equal(again.encode_texts(TEXTS), encoder.encode_texts(TEXTS))
    theirs, _, transform = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    theirs.eval()
    tokens = open_clip.get_tokenizer(f"local-dir:{folder}")(TEXTS)
    with torch.no_grad():
        found = theirs.encode_image(torch.from_numpy(images), normalize=True)
        words = theirs.encode_text(tokens, normalize=True)
    np.testing.assert_allclose(found, encoder.encode_images(images)[0], atol=2e-6)
    np.testing.assert_allclose(words, encoder.encode_texts(TEXTS), atol=2e-6)
    normalise = transform.transforms[-1]
    assert tuple(normalise.mean) == encoder.identity.preprocess.mean


def test_a_tokenizer_of_its_own_goes_along(checkpoint: Checkpoint, tmp_path: Path) -> None:
    first = tmp_path / "first"
    encoder_of("tiny-vit", checkpoint).save_model(first)
    described = json.loads((first / "open_clip_config.json").read_text())
    described["model_cfg"]["text_cfg"] |= {
        "hf_tokenizer_name": "some/tokenizer",
        "tokenizer_kwargs": {"clean": "lower"},
    }
    (first / "open_clip_config.json").write_text(json.dumps(described))
    from clipkit.models.clip_tokenizer import clip_tokenizer

    clip_tokenizer(77).save(first / "tokenizer.json")
    (first / "tokenizer_config.json").write_text(json.dumps({"pad_token": "<|endoftext|>"}))
    encoder = load(f"{first}/")
    assert isinstance(encoder, OpenClipEncoder)
    encoder.save_model(tmp_path / "second")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert (tmp_path / "second" / name).read_bytes() == (first / name).read_bytes()
    assert np.array_equal(load(f"{tmp_path}/second/").encode_texts(TEXTS), encoder.encode_texts(TEXTS))


def test_nothing_is_written_over(checkpoint: Checkpoint, tmp_path: Path) -> None:
    encoder = encoder_of("tiny-vit", checkpoint)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").touch()
    with pytest.raises(UsageError, match="exists"):
        encoder.save_model(tmp_path / "full")
    with pytest.raises(UsageError, match="there is no folder"):
        encoder.save_model(tmp_path / "none" / "model")
    (tmp_path / "empty").mkdir()
    encoder.save_model(tmp_path / "empty")
    assert (tmp_path / "empty" / "open_clip_model.safetensors").is_file()


def test_a_failed_write_leaves_nothing(checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = encoder_of("tiny-vit", checkpoint)

    def full(*_: Any, **__: Any) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr("safetensors.torch.save_file", full)
    with pytest.raises(OSError, match="no space"):
        encoder.save_model(tmp_path / "model")
    assert not list(tmp_path.iterdir())
