"""The torch backend, with one random model of each family."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image

from clipkit.errors import ClipkitError
from clipkit.models.load import load
from clipkit.models.open_clip import OpenClipEncoder
from tests.models import tiny

Checkpoint = Callable[[str], Path]
TEXTS = ["a cat", "a photo of a dog.", "", "many " * 100, "ein Löwe 🦁", "x", "y", "z", "nine", "ten", "eleven"]


@pytest.fixture(scope="module", params=tiny.FAMILIES)
def family(request: pytest.FixtureRequest, checkpoint: Checkpoint) -> tuple[str, OpenClipEncoder, Any]:
    arch = str(request.param)
    encoder = load(f"{arch}:{checkpoint(arch)}")
    assert isinstance(encoder, OpenClipEncoder)
    reference = open_clip.create_model(arch)
    open_clip.load_checkpoint(reference, str(checkpoint(arch)))
    return arch, encoder, reference.eval()


def pixels(encoder: Any, count: int, seed: int = 0) -> np.ndarray:
    shape = (count, 3, *encoder.identity.preprocess.size)
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def test_features_are_open_clips(family: tuple[str, OpenClipEncoder, Any]) -> None:
    arch, encoder, reference = family
    images = pixels(encoder, 3)
    tokens = open_clip.get_tokenizer(arch)(TEXTS)
    with torch.no_grad():
        expected_images = reference.encode_image(torch.from_numpy(images), normalize=True).numpy()
        expected_texts = reference.encode_text(tokens, normalize=True).numpy()
    joint, backbone = encoder.encode_images(images)
    assert backbone is None
    assert joint.dtype == np.float32 and joint.flags.c_contiguous
    np.testing.assert_allclose(joint, expected_images, atol=2e-6)
    np.testing.assert_allclose(encoder.encode_texts(TEXTS), expected_texts, atol=2e-6)
    assert not np.allclose(expected_images[0], expected_images[1], atol=1e-4), "the model tells images apart"
    assert encoder.logit_scale == pytest.approx(float(reference.logit_scale.detach().exp()))
    bias = reference.logit_bias
    assert encoder.logit_bias == (None if bias is None else float(bias.detach()))


def test_alone_equals_batched_bitwise(family: tuple[str, OpenClipEncoder, Any]) -> None:
    _, encoder, _ = family
    images = pixels(encoder, encoder.batch_size + 3)
    joint, backbone = encoder.encode_images(images, backbone=True)
    texts = encoder.encode_texts(TEXTS)
    for row in range(len(images)):
        alone, behind = encoder.encode_images(images[row : row + 1], backbone=True)
        assert np.array_equal(alone[0], joint[row])
        if backbone is not None and behind is not None:
            assert np.array_equal(behind[0], backbone[row])
    for row, text in enumerate(TEXTS):
        assert np.array_equal(encoder.encode_texts([text])[0], texts[row])


def test_a_row_depends_neither_on_its_place_nor_on_its_neighbours(family: tuple[str, OpenClipEncoder, Any]) -> None:
    _, encoder, _ = family
    one = pixels(encoder, 1)
    expected = encoder.encode_images(one)[0][0]
    for place in range(encoder.batch_size):
        batch = pixels(encoder, encoder.batch_size, seed=place + 1)
        batch[place] = one[0]
        assert np.array_equal(encoder.encode_images(batch)[0][place], expected)


def test_backbone_features(family: tuple[str, OpenClipEncoder, Any]) -> None:
    arch, encoder, reference = family
    images = pixels(encoder, 2)
    joint, backbone = encoder.encode_images(images, backbone=True)
    if arch == "tiny-sigmoid":
        assert backbone is None and encoder.backbone_dim is None
        return
    assert backbone is not None and backbone.shape == (2, encoder.backbone_dim)
    behind = torch.from_numpy(backbone)
    with torch.no_grad():
        if arch == "tiny-resnet":
            last = reference.visual.forward_intermediates(torch.from_numpy(images), indices=[4])["image_intermediates"][
                0
            ]
            np.testing.assert_allclose(backbone, last.mean(dim=(2, 3)).numpy(), atol=1e-5)
            return
        projected = reference.visual.head(behind) if arch == "tiny-convnext" else behind @ reference.visual.proj
    np.testing.assert_allclose(torch.nn.functional.normalize(projected, dim=-1).numpy(), joint, atol=2e-6)


def test_no_rows(family: tuple[str, OpenClipEncoder, Any]) -> None:
    _, encoder, _ = family
    assert encoder.encode_images(pixels(encoder, 0))[0].shape == (0, encoder.identity.dim)
    assert encoder.encode_texts([]).shape == (0, encoder.identity.dim)


def test_long_texts_are_cut_and_counted(family: tuple[str, OpenClipEncoder, Any]) -> None:
    _, encoder, _ = family
    assert encoder.count_tokens(["a cat", "many " * 100]) == [4, 102]
    assert encoder.count_tokens(["many " * 100])[0] > encoder.context_length


def test_threads_at_once_give_the_same_and_use_one_core_each(checkpoint: Checkpoint) -> None:
    encoder = load(f"tiny-convnext:{checkpoint('tiny-convnext')}")
    batches = [pixels(encoder, 5, seed) for seed in range(12)]
    expected = [encoder.encode_images(batch, backbone=True) for batch in batches]
    inside: set[int] = set()
    meet = threading.Barrier(2)

    def encode(batch: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        meet.wait(timeout=60)
        inside.add(torch.get_num_threads())
        return encoder.encode_images(batch, backbone=True)

    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(encode, batches))
    assert inside == {1}
    for (joint, backbone), (expected_joint, expected_backbone) in zip(found, expected, strict=True):
        assert np.array_equal(joint, expected_joint)
        assert backbone is not None and expected_backbone is not None
        assert np.array_equal(backbone, expected_backbone)


def test_identity_is_of_the_weights_not_of_the_file(checkpoint: Checkpoint, tmp_path: Path) -> None:
    one = load(f"tiny-vit:{checkpoint('tiny-vit')}").identity
    model = tiny.make("tiny-vit")
    pickled = tiny.save(model, tmp_path / "renamed.pt")
    wrapped = tmp_path / "epoch_1.pt"
    torch.save(
        {"epoch": 1, "state_dict": {f"module.{name}": value for name, value in model.state_dict().items()}}, wrapped
    )
    for path in (pickled, wrapped):
        other = load(f"tiny-vit:{path}").identity
        assert other.digest == one.digest
        assert other.name == f"tiny-vit:{path.name}"


@pytest.mark.parametrize("name", ["visual.class_embedding", "text_projection", "logit_scale"])
def test_identity_changes_with_any_weight(checkpoint: Checkpoint, tmp_path: Path, name: str) -> None:
    model = tiny.make("tiny-vit")
    with torch.no_grad():
        model.get_parameter(name).view(-1)[0].add_(1e-6)
    changed = load(f"tiny-vit:{tiny.save(model, tmp_path / 'a.pt')}").identity
    assert changed.digest != load(f"tiny-vit:{checkpoint('tiny-vit')}").identity.digest


def test_identity_changes_with_activation(checkpoint: Checkpoint) -> None:
    config = {**tiny.CONFIGS["tiny-vit"], "quick_gelu": True}
    folder = checkpoint("tiny-vit").parent.parent / "folder"
    folder.mkdir()
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": {}}))
    (folder / "open_clip_model.safetensors").write_bytes(checkpoint("tiny-vit").read_bytes())
    quick, plain = load(str(folder)).identity, load(f"tiny-vit:{checkpoint('tiny-vit')}").identity
    assert (quick.activation, plain.activation) == ("quickgelu", "gelu")
    assert quick.weights == plain.weights
    assert quick.preprocess == plain.preprocess
    assert quick.digest != plain.digest


def test_a_config_beside_the_checkpoint_gives_the_preprocessing(checkpoint: Checkpoint, tmp_path: Path) -> None:
    preprocess = {"mean": [0.5] * 3, "std": [0.25] * 3, "resize_mode": "squash", "interpolation": "bilinear"}
    config = {"model_cfg": tiny.CONFIGS["tiny-vit"], "preprocess_cfg": preprocess}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
    path = tiny.save(tiny.make("tiny-vit"), tmp_path / "a.safetensors")
    found, plain = load(f"tiny-vit:{path}").identity, load(f"tiny-vit:{checkpoint('tiny-vit')}").identity
    assert (found.preprocess.resize_mode, found.preprocess.interpolation) == ("squash", "bilinear")
    assert (found.preprocess.mean, found.preprocess.std) == ((0.5,) * 3, (0.25,) * 3)
    assert found.digest != plain.digest


def test_preprocess_is_open_clips(checkpoint: Checkpoint) -> None:
    encoder = load(f"tiny-vit:{checkpoint('tiny-vit')}")
    noise = np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)
    image = Image.fromarray(noise)
    transform = open_clip.image_transform(32, is_train=False)
    assert np.array_equal(encoder.preprocess(image), transform(image).numpy())


@pytest.fixture
def cramped(checkpoint: Checkpoint) -> Iterator[tuple[OpenClipEncoder, list[int]]]:
    """An encoder whose image tower has memory for two images; the limit can be changed."""
    encoder = load(f"tiny-vit:{checkpoint('tiny-vit')}")
    assert isinstance(encoder, OpenClipEncoder)
    room = [2]

    def full(_: Any, args: tuple[torch.Tensor]) -> None:
        if len(args[0]) > room[0]:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    handle = encoder._model.visual.register_forward_pre_hook(full)  # type: ignore[union-attr, operator]
    yield encoder, room
    handle.remove()


def test_out_of_memory_halves_the_batch_for_good(cramped: tuple[OpenClipEncoder, list[int]]) -> None:
    encoder, _ = cramped
    images = pixels(encoder, 5)
    space = encoder.space
    found = encoder.encode_images(images)[0]
    assert encoder.batch_size == 2
    assert encoder.space != space, "another batch shape, another last digit: the cache must not mix them"
    assert len(encoder.notices) == 2 and "2 instead of 4" in encoder.notices[-1]
    assert np.array_equal(found, encoder.encode_images(images)[0])
    assert len(encoder.notices) == 2


def test_out_of_memory_for_one_image_is_an_error(cramped: tuple[OpenClipEncoder, list[int]]) -> None:
    encoder, room = cramped
    room[0] = 0
    with pytest.raises(ClipkitError, match="even for one image at a time"):
        encoder.encode_images(pixels(encoder, 1))


def test_features_that_are_not_finite_are_an_error(checkpoint: Checkpoint) -> None:
    encoder = load(f"tiny-vit:{checkpoint('tiny-vit')}")
    with pytest.raises(ClipkitError, match="not finite"):
        encoder.encode_images(np.full((1, 3, 32, 32), np.nan, np.float32))


def test_bf16_is_near_f32_and_another_space(checkpoint: Checkpoint) -> None:
    name = f"tiny-vit:{checkpoint('tiny-vit')}"
    exact, rough = load(name), load(name, precision="bf16")
    images = pixels(exact, 3)
    one, other = exact.encode_images(images)[0], rough.encode_images(images)[0]
    assert other.dtype == np.float32
    assert not np.array_equal(one, other)
    assert (one * other).sum(axis=1).min() > 0.999
    assert np.allclose(np.linalg.norm(other, axis=1), 1, atol=1e-6)
    assert exact.space != rough.space and exact.identity == rough.identity
