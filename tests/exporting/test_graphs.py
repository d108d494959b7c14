"""Each family as graphs: the same features, and all that makes a model what it is."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clipkit.errors import ClipkitError
from clipkit.exporting.base import Wish
from clipkit.exporting.running import Export, export
from clipkit.exporting.source import Source
from clipkit.models.load import load
from tests.exporting.conftest import Maker
from tests.models import tiny

TEXTS = ["a cat", "", "many " * 100, "ein Löwe 🦁", *(f"number {i}" for i in range(7))]
TRAVELS = ("identity", "logit_scale", "logit_bias", "context_length", "backbone_dim", "few_shot_space", "precision")


def check(folder: Path, source: Source) -> None:
    encoder, whole = load(str(folder)), source.encoder
    for name in TRAVELS:
        assert getattr(encoder, name) == getattr(whole, name), name
    pixels = np.random.default_rng(0).standard_normal((11, 3, *whole.identity.preprocess.size), dtype=np.float32)
    (joint, backbone), (right, behind) = (model.encode_images(pixels, backbone=True) for model in (encoder, whole))
    texts = encoder.encode_texts(TEXTS)
    np.testing.assert_allclose(joint, right, atol=1e-4)
    np.testing.assert_allclose(texts, whole.encode_texts(TEXTS), atol=1e-4)
    assert (backbone is None) == (behind is None)
    if backbone is not None and behind is not None:
        np.testing.assert_allclose(backbone, behind, atol=1e-4 * max(1, np.abs(behind).max()))
    assert encoder.count_tokens(TEXTS) == whole.count_tokens(TEXTS)
    for row in (0, 8, 10):
        assert np.array_equal(encoder.encode_images(pixels[row : row + 1])[0][0], joint[row])
        assert np.array_equal(encoder.encode_texts([TEXTS[row]])[0], texts[row])


@pytest.mark.parametrize(
    "arch", ["tiny-vit", *(pytest.param(arch, marks=pytest.mark.slow) for arch in tiny.FAMILIES[1:])]
)
def test_every_family(exported: Callable[[str], Path], source: Callable[[str], Source], arch: str) -> None:
    check(exported(arch), source(arch))


@pytest.mark.slow
def test_activation_and_bias_are_those_of_the_source(exported: Callable[[str], Path]) -> None:
    assert load(str(exported("tiny-resnet"))).identity.activation == "quickgelu"
    assert load(str(exported("tiny-vit"))).identity.activation == "gelu"
    assert load(str(exported("tiny-vit-sigmoid"))).logit_bias == -10


@pytest.fixture(scope="module")
def transformers_text(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """A folder in the hub's layout whose text tower and tokenizer are those of transformers."""
    transformers = pytest.importorskip("transformers")
    import open_clip
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    beside = tmp_path_factory.mktemp("transformers")
    words = ["<s>", "<pad>", "</s>", "<unk>", "a", "cat", "number", *map(str, range(500))]
    tokenizer = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing("<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)])
    special = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    wrapped = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, cls_token="<s>", sep_token="</s>", **special
    )
    wrapped.save_pretrained(beside)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    transformers.RobertaConfig(
        vocab_size=len(words), max_position_embeddings=80, pad_token_id=1, **sizes
    ).save_pretrained(beside)

    def of(name: str, **text: Any) -> Path:
        described = {
            "hf_model_name": str(beside),
            "hf_tokenizer_name": str(beside),
            "hf_proj_type": "mlp",
            "hf_pooler_type": "mean_pooler",
            "hf_model_pretrained": False,
            "context_length": 32,
            **text,
        }
        config = {"embed_dim": 32, "vision_cfg": tiny.CONFIGS["tiny-vit"]["vision_cfg"], "text_cfg": described}
        folder = tmp_path_factory.mktemp("model") / name
        folder.mkdir()
        (beside / f"{name}.json").write_text(json.dumps(config | {"custom_text": True}))
        open_clip.add_model_config(beside / f"{name}.json")
        tiny.save(open_clip.create_model(name, pretrained_text=False), folder / "open_clip_model.safetensors")
        about = {"model_cfg": config | {"custom_text": True}, "preprocess_cfg": {"mean": [0.5] * 3, "std": [0.5] * 3}}
        (folder / "open_clip_config.json").write_text(json.dumps(about))
        for file in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copyfile(beside / file, folder / file)
        return folder

    return of


def test_a_text_tower_of_transformers(transformers_text: Callable[..., Path], make: Maker, tmp_path: Path) -> None:
    """Its attention leaves out what pads, which hangs on the ids."""
    source = Source(f"{transformers_text('tiny-transformers')}/", None, tmp_path)
    make("onnx", source, tmp_path / "model", towers=("text",))
    encoder, whole = load(str(tmp_path / "model")), source.encoder
    texts = encoder.encode_texts(TEXTS)
    np.testing.assert_allclose(texts, whole.encode_texts(TEXTS), atol=1e-4)
    assert encoder.count_tokens(TEXTS) == whole.count_tokens(TEXTS)
    assert np.array_equal(encoder.encode_texts(TEXTS[:1])[0], texts[0])


def test_a_tokenizer_that_is_no_file(
    transformers_text: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is refused before any network is made; without texts nobody needs it."""
    folder, asked = transformers_text("tiny-strip", tokenizer_kwargs={"strip_sep_token": True}), []

    def graph(self: Source, tower: str) -> Path:
        asked.append(tower)
        raise ClipkitError("made")

    monkeypatch.setattr(Source, "graph", graph)
    both = Export(model=f"{folder}/", target="onnx", wish=Wish(), out=str(tmp_path / "both"))
    with pytest.raises(ClipkitError, match=r"the tokenizer of tiny-strip cannot be written") as caught:
        export(both)
    assert caught.value.hint == "--tower image ships its image tower" and asked == []
    with pytest.raises(ClipkitError, match="made"):
        export(replace(both, wish=Wish(towers=("image",))))
    assert asked == ["image"]
