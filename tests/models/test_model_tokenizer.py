"""The tokenizers of models that bring their own (SigLIP and others), read without transformers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from clipkit.errors import ClipkitError
from clipkit.models.load import load
from clipkit.models.model_tokenizer import model_tokenizer
from tests.models import tiny

WORDS = ["</s>", "<unk>", "a", "cat", "dog", "photo", "s"]
TEXT_CFG = {"context_length": 5, "hf_tokenizer_name": "org/none", "tokenizer_kwargs": {"clean": "canonicalize"}}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A word tokenizer in the hub's layout, which closes and pads with `</s>`, as SigLIP's does."""
    tokenizer = Tokenizer(models.WordLevel({word: index for index, word in enumerate(WORDS)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 0)])
    tokenizer.enable_truncation(3)  # what a saved file may ask for is not what the model wants
    tokenizer.enable_padding(length=9, pad_id=1)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    write_config(tmp_path, pad_token="</s>")
    return tmp_path


def write_config(folder: Path, **config: Any) -> None:
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


def ids(folder: Path, text: str) -> list[int]:
    found: list[int] = model_tokenizer(f"local-dir:{folder}", TEXT_CFG)([text])[0].tolist()
    return found


def test_cleaned_closed_and_padded(folder: Path) -> None:
    assert ids(folder, "A  Cat's!") == [2, 1, 0, 0, 0], "canonicalize: lower case, no punctuation"
    assert ids(folder, "a_photo") == [2, 5, 0, 0, 0]


def test_a_long_text_is_cut_and_closed(folder: Path) -> None:
    assert ids(folder, "a a a a cat dog") == [2, 2, 2, 2, 0]
    assert model_tokenizer(f"local-dir:{folder}", TEXT_CFG).count("a a a a cat dog") == 7


def test_a_padding_token_spelled_as_an_object(folder: Path) -> None:
    write_config(folder, pad_token={"content": "<unk>", "lstrip": False})
    assert ids(folder, "cat") == [3, 0, 1, 1, 1]


def test_padding_on_the_left_is_not_guessed(folder: Path) -> None:
    write_config(folder, pad_token="</s>", padding_side="left")
    with pytest.raises(ClipkitError, match="pads in a way"):
        ids(folder, "cat")


def test_a_folder_without_its_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ClipkitError, match="lacks the model's tokenizer") as caught:
        ids(folder, "cat")
    assert caught.value.hint == "hf download org/none"


def test_a_siglip_name_without_the_network_names_the_tokenizer(tmp_path: Path) -> None:
    (tmp_path / "a.pt").touch()
    with pytest.raises(ClipkitError, match="the tokenizer timm/ViT-B-16-SigLIP is not on this machine"):
        load(f"ViT-B-16-SigLIP:{tmp_path}/a.pt")


def test_a_model_in_the_hubs_layout_uses_its_own(folder: Path) -> None:
    config = tiny.CONFIGS["tiny-sigmoid"]
    text_cfg = {**config["text_cfg"], **TEXT_CFG, "context_length": 64}
    described = {"model_cfg": {**config, "text_cfg": text_cfg}, "preprocess_cfg": {"mean": [0.5] * 3, "std": [0.5] * 3}}
    (folder / "open_clip_config.json").write_text(json.dumps(described))
    tiny.register(folder)
    tiny.save(tiny.make("tiny-sigmoid"), folder / "open_clip_model.safetensors")
    encoder = load(str(folder))
    assert encoder.count_tokens(["a cat", "Dog."]) == [3, 2]
    assert encoder.encode_texts(["a cat", "a dog"]).shape == (2, 64)
    assert encoder.logit_bias == -10
    assert encoder.identity.preprocess.mean == (0.5, 0.5, 0.5)
