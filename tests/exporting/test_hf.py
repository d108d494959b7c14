"""`--to hf`: what transformers loads gives the same answers, and every tensor has its place."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file
from timm.models.vision_transformer import VisionTransformer
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from clipkit.errors import ClipkitError, UsageError
from clipkit.exporting import hf_config, hf_encoder, hf_layout
from clipkit.exporting.hf_encoder import TransformersEncoder
from clipkit.exporting.source import Source
from clipkit.images.transform import frame
from clipkit.models.base import Preprocess
from clipkit.models.load import load
from clipkit.models.open_clip import untrained
from tests.exporting.conftest import Maker, pictures
from tests.models import tiny

transformers = pytest.importorskip("transformers")

TEXTS = [
    "a photo of a cat",
    "",
    "It's 2 O'CLOCK!  the dog's 1000 bones; naïve café\t(ÉTÉ) 猫 😀",
    "many " * 100,
    "!",
    "closing <|endoftext|> early",
]


class Made:
    """A model in both forms."""

    def __init__(self, folder: Path, encoder: Any) -> None:
        self.folder, self.encoder = folder, encoder
        self.there = TransformersEncoder(folder)


def variant(checkpoint: Callable[[str], Path], name: str, folder: Path, **changes: Any) -> str:
    """tiny-vit with other settings, as an architecture and a checkpoint of its own."""
    checkpoint("tiny-vit")
    config = json.loads(json.dumps(tiny.CONFIGS["tiny-vit"]))
    for key, value in changes.items():
        config[key] = config.get(key, {}) | value if isinstance(value, dict) else value
    (folder / f"{name}.json").write_text(json.dumps(config))
    open_clip.add_model_config(folder / f"{name}.json")
    return f"{name}:{tiny.save(tiny.make(name), folder / 'model.safetensors')}"


@pytest.fixture(scope="module")
def clip(make: Maker, source: Callable[[str], Source], tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("hf") / "tiny"
    make("hf", source("tiny-vit"), folder)
    return Made(folder, source("tiny-vit").encoder)


@pytest.fixture(scope="module")
def siglip(make: Maker, tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("siglip")
    make("hf", f"{_siglip(folder)}/", folder / "out")
    return Made(folder / "out", load(f"{folder / 'in'}/", device="cpu"))


def _siglip(folder: Path) -> Path:
    """A small SigLIP in the hub's layout: a timm ViT pooled by attention, a word tokenizer that pads with `</s>`."""
    if "tiny_siglip_vit" not in timm.list_models():

        def tiny_siglip_vit(pretrained: bool = False, **options: Any) -> VisionTransformer:
            for name in ("pretrained_cfg", "pretrained_cfg_overlay", "cache_dir"):
                options.pop(name, None)
            sizes: dict[str, Any] = {
                "img_size": 32,
                "patch_size": 8,
                "embed_dim": 64,
                "depth": 2,
                "num_heads": 2,
                "mlp_ratio": 3.7,
            }
            return VisionTransformer(**sizes, class_token=False, **options)

        tiny_siglip_vit.__module__ = "timm.models.vision_transformer"
        timm.models.register_model(tiny_siglip_vit)
    config = {
        "embed_dim": 64,
        "init_logit_bias": -10,
        "custom_text": True,
        "vision_cfg": {"timm_model_name": "tiny_siglip_vit", "timm_pool": "map", "timm_proj": "none", "image_size": 32},
        "text_cfg": {
            "context_length": 8,
            "vocab_size": 50,
            "width": 64,
            "heads": 2,
            "layers": 2,
            "no_causal_mask": True,
            "proj_bias": True,
            "pool_type": "last",
            "norm_kwargs": {"eps": 1e-6},
            "hf_tokenizer_name": "org/none",
            "tokenizer_kwargs": {"clean": "canonicalize"},
        },
    }
    pixels = {"mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic", "resize_mode": "squash"}
    made = folder / "in"
    made.mkdir()
    words = ["</s>", "<unk>", *"abcdefghij", "cat", "photo", "its"]
    tokenizer = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.normalizer = normalizers.Replace("zzz", "cat")
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 0)])
    tokenizer.save(str(made / "tokenizer.json"))
    (made / "tokenizer_config.json").write_text(json.dumps({"pad_token": "</s>"}))
    (made / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": pixels}))
    open_clip.add_model_config(_named(folder / "tiny-siglip-model.json", config))
    tiny.save(tiny.make("tiny-siglip-model"), made / "open_clip_model.safetensors")
    return made


def _named(path: Path, config: dict[str, Any]) -> Path:
    path.write_text(json.dumps(config))
    return path


@pytest.fixture(params=["clip", "siglip"])
def both(request: pytest.FixtureRequest) -> Made:
    made: Made = request.getfixturevalue(request.param)
    return made


def test_the_same_features_and_the_same_identity(both: Made) -> None:
    here, there = both.encoder, both.there
    assert there.identity.digest == here.identity.digest
    assert there.logit_scale == here.logit_scale
    assert there.logit_bias == here.logit_bias
    pixels = np.random.default_rng(0).standard_normal((3, 3, 32, 32), dtype=np.float32)
    np.testing.assert_allclose(there.encode_images(pixels)[0], here.encode_images(pixels)[0], atol=1e-5)
    np.testing.assert_allclose(there.encode_texts(TEXTS[:5]), here.encode_texts(TEXTS[:5]), atol=1e-5)


def test_the_processors_pixels(both: Made) -> None:
    """As Pillow's to the rounding of a level; the crop where transformers has it, rounded down."""
    preprocess = both.encoder.identity.preprocess
    assert_own_pixels(both.there.own_pixels, preprocess)
    report = hf_encoder.processor_facts(both.there, pictures(4))
    assert 0.9 < report["cosine_min"] <= report["cosine_mean"] <= 1.0


def assert_own_pixels(made: Callable[[Image.Image], np.ndarray], preprocess: Preprocess) -> None:
    height, width = preprocess.size
    mean, std = (np.array(part)[:, None, None] for part in (preprocess.mean, preprocess.std))
    resample = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}[preprocess.interpolation]
    shifted = 0
    for picture in [*pictures(4), pictures(1)[0].resize((2 * width, 2 * height + 6))]:  # the last has a margin of 3
        expected = frame(preprocess, picture)
        if preprocess.resize_mode == "shortest":
            short = min(picture.size)
            resized = picture.resize([int(width * side / short) for side in picture.size], resample)
            left, top = (resized.width - width) // 2, (resized.height - height) // 2
            cropped = resized.crop((left, top, left + width, top + height))
            shifted += cropped.tobytes() != expected.tobytes()
            expected = cropped
        levels = (made(picture) * std + mean) * 255 - np.asarray(expected).transpose(2, 0, 1)
        assert np.abs(levels).max() < 1.01
        assert np.mean(np.abs(levels) > 0.5) < 0.02
    assert shifted or preprocess.resize_mode == "squash"


def test_the_same_tokens(both: Made) -> None:
    context = both.encoder.context_length
    processor = transformers.AutoProcessor.from_pretrained(both.folder)
    given = processor(text=TEXTS, padding="max_length", truncation=True)
    for text, theirs, ours in zip(TEXTS, given["input_ids"], both.encoder.tokenize(TEXTS).tolist(), strict=True):
        assert len(theirs) == context
        length = min(context, both.encoder.count_tokens([text])[0])
        assert theirs[:length] == ours[:length], text
    if both.encoder.logit_bias is not None:  # SigLIP's text tower sees what pads, and masks nothing
        assert given["input_ids"] == both.encoder.tokenize(TEXTS).tolist()
        assert "attention_mask" not in given


def test_the_old_form_of_the_tokenizer(clip: Made) -> None:
    """vocab.json and merges.txt, without tokenizer.json, are the same tokenizer."""
    vocabulary = json.loads((clip.folder / "vocab.json").read_text())
    merges = [tuple(line.split()) for line in (clip.folder / "merges.txt").read_text().splitlines()[1:]]
    old = transformers.CLIPTokenizer(vocab=vocabulary, merges=merges)
    new = transformers.CLIPTokenizer.from_pretrained(clip.folder)
    assert len(vocabulary) == 49408
    for text in TEXTS:
        assert old(text)["input_ids"] == new(text)["input_ids"]


def test_the_processor_and_the_model_as_transformers_finds_them(both: Made) -> None:
    model = transformers.AutoModel.from_pretrained(both.folder).eval()
    processor = transformers.AutoProcessor.from_pretrained(both.folder)
    given = processor(text=TEXTS[:2], images=pictures(2), return_tensors="pt", padding="max_length", truncation=True)
    with torch.inference_mode():
        logits = model(**given).logits_per_image.numpy()
    ours = both.encoder
    images = ours.encode_images(given["pixel_values"].numpy())[0]
    expected = ours.logit_scale * images @ ours.encode_texts(TEXTS[:2]).T + (ours.logit_bias or 0.0)
    np.testing.assert_allclose(logits, expected, atol=1e-4)


def test_every_tensor_is_used_once_and_filled_once(both: Made) -> None:
    state = both.encoder.module().state_dict()
    config = json.loads((both.folder / "config.json").read_text())
    prefix = hf_config.text_prefix(both.encoder.module())
    lines = hf_layout.lines_of(config, prefix)
    ours = [name for line in lines for name in line.ours]
    theirs = [name for line in lines for name in line.theirs]
    assert sorted(ours) == sorted(state)
    kind = getattr(transformers, config["architectures"][0])
    wanted = {name: value.shape for name, value in kind(type(both.there._model.config)(**config)).state_dict().items()}
    assert sorted(theirs) == sorted(wanted)
    assert {name: value.shape for name, value in load_file(both.folder / "model.safetensors").items()} == wanted


def test_there_and_back_again_bit_for_bit(both: Made) -> None:
    state = both.encoder.module().state_dict()
    prefix = hf_config.text_prefix(both.encoder.module())
    lines = hf_layout.lines_of(json.loads((both.folder / "config.json").read_text()), prefix)
    back = hf_layout.to_open_clip(load_file(both.folder / "model.safetensors"), lines)
    assert back.keys() == state.keys()
    for name, value in back.items():
        assert value.shape == state[name].shape
        assert torch.equal(value, state[name]), name


def test_a_tensor_without_a_place_is_never_dropped(clip: Made) -> None:
    state = dict(clip.encoder.module().state_dict())
    lines = hf_layout.lines_of(json.loads((clip.folder / "config.json").read_text()), "")
    with pytest.raises(ClipkitError, match=r"there is no place for logit_bias"):
        hf_layout.to_transformers(state | {"logit_bias": torch.zeros(())}, lines)
    del state["visual.ln_pre.bias"]
    with pytest.raises(ClipkitError, match=r"it has no visual\.ln_pre\.bias"):
        hf_layout.to_transformers(state, lines)


@pytest.mark.parametrize(
    ("name", "changes", "activation"),
    [
        ("tiny-vit-quick", {"quick_gelu": True}, "quick_gelu"),
        ("tiny-vit-tanh", {"text_cfg": {"act_kwargs": {"approximate": "tanh"}}}, "gelu_pytorch_tanh"),
        ("tiny-vit-custom", {"custom_text": True}, "gelu"),
        (
            "tiny-vit-short",
            {"text_cfg": {"context_length": 20, "mlp_ratio": 3.0, "norm_kwargs": {"eps": 1e-3}}},
            "gelu",
        ),
    ],
)
def test_what_leaves_no_tensor_travels(
    make: Maker,
    checkpoint: Callable[[str], Path],
    tmp_path: Path,
    name: str,
    changes: dict[str, Any],
    activation: str,
) -> None:
    """The activation, the eps of layer norms, lengths, and in which class of open_clip the tensors were."""
    model = variant(checkpoint, name, tmp_path, **changes)
    make("hf", model, tmp_path / "out")
    made = Made(tmp_path / "out", load(model, device="cpu"))
    assert json.loads((made.folder / "config.json").read_text())["text_config"]["hidden_act"] == activation
    test_the_same_features_and_the_same_identity(made)


REFUSED = {
    "tiny-vit-sigmoid": "it has a logit bias",
    "tiny-resnet": "its image tower is a ModifiedResNet, not a vision transformer",
    "tiny-convnext": "its image tower is a ConvNeXt, not a vision transformer",
    "tiny-coca": "it has a text decoder (CoCa)",
    "tiny-sigmoid": "its image tower has a class token",
}


@pytest.mark.parametrize(("arch", "why"), REFUSED.items())
def test_families_that_transformers_has_no_class_for(
    make: Maker, source: Callable[[str], Source], tmp_path: Path, arch: str, why: str
) -> None:
    with pytest.raises(ClipkitError) as caught:
        make("hf", source(arch), tmp_path / "out")
    assert why in caught.value.message
    assert f"cannot hold {source(arch).encoder.identity.name}" in caught.value.message
    assert "\n" not in caught.value.message
    assert not list((tmp_path / "out").iterdir()), "before anything is written"


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"vision_cfg": {"pool_type": "avg"}}, "doesn't take the class token"),
        ({"vision_cfg": {"no_ln_pre": True}}, "it has no visual.ln_pre.bias, visual.ln_pre.weight"),
        ({"vision_cfg": {"ls_init_value": 0.1}}, "there is no place for visual.transformer.resblocks.0.ls_1.gamma"),
        ({"vision_cfg": {"image_size": [32, 64]}}, "its pictures are not square"),
        ({"text_cfg": {"no_causal_mask": True}}, "no causal mask"),
        ({"text_cfg": {"pool_type": "last"}}, "doesn't take the closing token"),
        ({"text_cfg": {"proj_bias": True}}, "its text projection has a bias"),
        ({"text_cfg": {"qk_norm": True}}, "layers of another kind"),
        ({"text_cfg": {"tokenizer_kwargs": {"clean": "whitespace"}}}, "its tokenizer is not CLIP's"),
    ],
)
def test_settings_that_clipmodel_has_not(
    make: Maker, checkpoint: Callable[[str], Path], tmp_path: Path, changes: dict[str, Any], why: str
) -> None:
    model = variant(checkpoint, tmp_path.name, tmp_path, **changes)
    with pytest.raises(ClipkitError) as caught:
        make("hf", model, tmp_path / "out")
    assert why in caught.value.message
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize("kind", ["clip", "siglip"])
@pytest.mark.parametrize("mode", ["shortest", "squash"])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_pixels_travel(clip: Made, tmp_path: Path, kind: str, mode: str, interpolation: str) -> None:
    preprocess = Preprocess((40, 40), (0.1, 0.2, 0.3), (0.5, 0.6, 0.7), mode, interpolation)
    identity = replace(clip.encoder.identity, preprocess=preprocess)
    if (kind, mode) == ("siglip", "shortest"):
        with pytest.raises(ClipkitError, match="SiglipImageProcessor only squashes"):
            hf_config.pixels_of(kind, identity)
        return
    described = hf_config.pixels_of(kind, identity)
    assert hf_config.preprocess_of(described, 40) == preprocess
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(described))
    processor = transformers.AutoImageProcessor.from_pretrained(tmp_path)
    assert_own_pixels(lambda image: processor(images=image, return_tensors="np")["pixel_values"][0], preprocess)


def test_pixels_that_transformers_cannot_make(clip: Made) -> None:
    identity = replace(clip.encoder.identity, preprocess=Preprocess((32, 32), (0,) * 3, (1,) * 3, "longest"))
    with pytest.raises(ClipkitError, match="resized by the longest side and padded"):
        hf_config.pixels_of("clip", identity)


def test_lite_is_refused(make: Maker, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="lite is no model of open_clip"):
        make("hf", "lite", tmp_path / "out")


def test_one_tower_is_no_model(make: Maker, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="a model has both towers"):
        make("hf", "lite", tmp_path / "out", towers=("text",))


@pytest.mark.slow
def test_a_carried_architecture(make: Maker, tmp_path: Path) -> None:
    weights = tiny.save(untrained("tiny-ViT-32", seed=0).module(), tmp_path / "model.safetensors")
    make("hf", f"tiny-ViT-32:{weights}", tmp_path / "out")
    test_the_same_features_and_the_same_identity(Made(tmp_path / "out", load(f"tiny-ViT-32:{weights}", device="cpu")))
