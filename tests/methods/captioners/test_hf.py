"""The captioner hf, on a tiny random BLIP and GIT made on the spot; nothing is fetched."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from clipkit.errors import ClipkitError, UsageError
from clipkit.methods.captioners.base import Request, Written
from clipkit.methods.captioners.hf import Hf

transformers = pytest.importorskip("transformers")

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "photo", "of", "dog", "cat", "red", "blue", "and", "the"]
TEXT = {"vocab_size": len(WORDS), "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
VISION = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 32, "patch_size": 8}


def save(kind: str, folder: Path, **how: Any) -> Path:
    """A model, its image processor and its tokenizer, as transformers writes them."""
    import torch

    torch.manual_seed(0)
    special = {"bos_token_id": 2, "eos_token_id": 3, "sep_token_id": 3, "pad_token_id": 0}
    vision = {**VISION, "intermediate_size": 64}
    text = {**TEXT, **special, "intermediate_size": 64}
    if kind == "blip":
        config = transformers.BlipConfig(text_config={**text, "encoder_hidden_size": 32}, vision_config=vision)
        model = transformers.BlipForConditionalGeneration(config)
        pixels = transformers.BlipImageProcessor(size={"height": 32, "width": 32})
    else:
        model = transformers.GitForCausalLM(transformers.GitConfig(vision_config=vision, **text))
        pixels = transformers.CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    with torch.no_grad():
        for value in model.parameters():
            if value.ndim >= 2:
                value.normal_(0, 0.5)
    model.save_pretrained(folder, **how)
    pixels.save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    transformers.BertTokenizer(str(folder / "vocab.txt")).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module", params=["blip", "git"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(request.param, tmp_path_factory.mktemp(request.param) / "tiny")


def request_of(seed: int) -> Request:
    pixels = np.random.default_rng(seed).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return Request(f"r{seed}", (), "r.png", file.getvalue)


def written(captioner: Hf, seeds: list[int]) -> list[list[str]]:
    found = captioner.finish([captioner.begin(request_of(seed)) for seed in seeds])
    return [[c.text for c in one.captions] if isinstance(one, Written) else [one.kind] for one in found]


def test_it_writes_what_transformers_does(folder: Path) -> None:
    import torch

    captioner = Hf(repo=str(folder), beams=3, count=2, max_tokens=8)
    captioner.setup(None, "cpu")
    model = transformers.AutoModelForImageTextToText.from_pretrained(folder).eval()
    processor = transformers.AutoImageProcessor.from_pretrained(folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    for seed in (1, 2):
        image = Image.open(io.BytesIO(request_of(seed).data()))  # type: ignore[misc]
        with torch.inference_mode():
            ids = model.generate(
                **processor(images=image, return_tensors="pt"),
                num_beams=3,
                num_return_sequences=2,
                max_new_tokens=8,
                do_sample=False,
            )
        expected = list(dict.fromkeys(tokenizer.batch_decode(ids, skip_special_tokens=True)))
        assert written(captioner, [seed]) == [[text for text in expected if text] or ["empty-answer"]]


def test_neither_order_nor_company_matters(folder: Path) -> None:
    captioner = Hf(repo=str(folder), max_tokens=6)
    captioner.setup(None, "cpu")
    assert written(captioner, [1, 2, 3]) == [written(captioner, [seed])[0] for seed in (1, 2, 3)]
    assert captioner.identity.startswith("tiny@") and len(captioner.identity) == len("tiny@") + 12


def test_through_the_verb(folder: Path, tmp_path: Path, in_process: Any) -> None:
    (tmp_path / "a.png").write_bytes(request_of(1).data())  # type: ignore[misc]
    done = in_process("recaption", "a.png", "--method", "hf", "--set", f"repo={folder}", "--set", "max_tokens=6", "-q")
    assert done.code == 0, done.stderr
    (record,) = map(json.loads, done.lines)
    assert record["texts"][0] == {"text": record["text"], "source": "hf", "model": record["texts"][0]["model"]}


def test_weights_that_would_be_unpickled_are_refused(folder: Path, tmp_path: Path) -> None:
    import torch

    pickled = tmp_path / "pickled"
    pickled.mkdir()
    for path in folder.iterdir():
        if path.suffix != ".safetensors":
            (pickled / path.name).write_bytes(path.read_bytes())
    torch.save({}, pickled / "pytorch_model.bin")
    with pytest.raises(ClipkitError, match="cannot be loaded"):
        Hf(repo=str(pickled)).setup(None, "cpu")


def test_refusals() -> None:
    with pytest.raises(UsageError, match="which model"):
        Hf().setup(None, "cpu")
    with pytest.raises(ValueError, match="beams"):
        Hf(repo="x", count=4, beams=3)
