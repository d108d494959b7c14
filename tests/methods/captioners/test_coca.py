"""The captioner coca, on a tiny random CoCa, against open_clip's own `generate`."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from clipkit.errors import UsageError
from clipkit.methods.captioners.coca import Coca
from tests.models import talking

torch = pytest.importorskip("torch")
pytest.importorskip("open_clip")

from clipkit.methods.captioners.generation import Decoder, Limits  # noqa: E402

SMALL = talking.FEW_WORDS
# What open_clip 3.3.0 generates with transformers 4.46.3, the end and what follows cut off: each row an image.
OPEN_CLIP = {
    (2, 20, 5): [  # also with its defaults, 6 beams in 3 groups
        [21, 65, 54, 21, 21, 21, 21, 21, 65, 21, 65, 21, 65, 21, 21, 54, 21, 54],
        [54, 21, 65, 21, 21, 54],
        [21, 65, 21, 65, 54, 21],
        [21, 65, 54, 21, 21, 21, 21, 21, 43, 21, 21, 21, 21, 21, 21, 65, 21, 21, 21],
        [21, 54, 21, 21, 21, 21, 21, 21, 21, 21, 21, 21, 21, 21, 21, 21, 21, 21, 21],
    ],
    (4, 16, 5): [
        [21, 65, 54, 21, 21, 21, 21, 21, 65, 21, 65, 21, 65, 21, 65],
        [21, 65, 54, 21, 21, 21, 21, 21, 65, 21, 65, 21, 65, 21, 65],
        [21, 43, 54, 21, 21, 21, 21, 21, 21, 21, 21, 21, 21, 21, 21],
        [21, 65, 54, 21, 21, 21, 21, 21, 65, 21, 65, 21, 65, 21, 21],
        [21, 65, 54, 21, 21, 54, 65, 21, 65, 21, 65, 21, 65, 21, 21],
    ],
    (6, 12, 3): [
        [21, 65, 54, 21, 21, 21, 21, 21, 65, 43],
        [21, 65, 54, 21, 21, 21, 21, 21, 65, 21, 65],
        [21, 43, 54, 21, 21, 21, 21, 21, 21, 21, 21],
        [21, 65, 54, 21, 21, 21, 21, 21, 43, 21, 21],
        [21, 65, 54, 21, 21, 21, 21, 21, 65, 21, 21],
    ],
}  # fmt: skip


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Any:
    talking.register(tmp_path_factory.mktemp("config"))
    torch.set_num_threads(1)  # several wait for each other at every one of so small steps
    return talking.make(SMALL)


def decoder(model: Any, most: int = 30, least: int = 5, batch: int = 4) -> Decoder:
    limits = Limits(talking.start(SMALL), talking.end(SMALL), least, most)
    return Decoder(model, limits, device="cpu", dtype=torch.float32, batch=batch)


def uniform(row: int, step: int) -> float:
    return float(np.random.default_rng([row, step]).uniform())


@pytest.mark.parametrize(("width", "most", "least"), OPEN_CLIP)
def test_beams_are_those_of_open_clip(width: int, most: int, least: int, model: Any) -> None:
    found = decoder(model, most, least).beams(talking.pictures(5), width)
    assert [some[0] for some in found] == OPEN_CLIP[width, most, least]
    assert all(len(some) == width for some in found)


@pytest.mark.parametrize(("top_p", "temperature"), [(0.9, 1.0), (0.5, 2.0), (1.0, 0.7)])
def test_nucleus_is_that_of_open_clip(
    top_p: float, temperature: float, model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its `generate` runs with transformers 5 as far as nucleus goes, once its look at the version is passed."""
    transformers = pytest.importorskip("transformers")
    from open_clip import coca_model

    names = ("LogitsProcessorList", "MinLengthLogitsProcessor", "RepetitionPenaltyLogitsProcessor", "MaxLengthCriteria")
    for name in (*names, "StoppingCriteriaList"):
        found = getattr(transformers, name, None) or getattr(transformers.generation, name)
        monkeypatch.setattr(coca_model, name, found, raising=False)
    monkeypatch.setattr(coca_model, "_has_transformers", True)
    monkeypatch.setitem(coca_model.GENERATION_TYPES, "top_p", transformers.TopPLogitsWarper)
    image = talking.pictures(1)
    for row in range(2):
        steps = iter(range(100))

        def drawn(probs: Any, _: int, row: int = row, steps: Any = steps) -> Any:
            sums = probs.double().cumsum(-1)
            return torch.searchsorted(sums, sums[:, -1:] * uniform(row, next(steps)), right=True)

        monkeypatch.setattr(coca_model.torch, "multinomial", drawn)
        ids = model.generate(
            torch.from_numpy(image),
            generation_type="top_p",
            top_p=top_p,
            temperature=temperature,
            seq_len=9,
            sot_token_id=talking.start(SMALL),
            eos_token_id=talking.end(SMALL),
        )[0].tolist()
        expected = ids[1 : ids.index(talking.end(SMALL))]
        draws = [functools.partial(uniform, row)]
        assert decoder(model, most=9, batch=1).nucleus(image, draws, top_p, temperature) == [expected]


def test_no_answer_depends_on_the_batch(model: Any) -> None:
    images = talking.pictures(3)
    draws = [functools.partial(uniform, row) for row in range(3)]
    one = decoder(model, most=7, batch=2)
    beams, drawn = one.beams(images, 2), one.nucleus(images, draws, 0.9, 1.0)
    backwards = one.nucleus(images[::-1].copy(), draws[::-1], 0.9, 1.0)
    assert drawn == backwards[::-1]
    for row in range(3):
        assert one.beams(images[row : row + 1], 2) == [beams[row]]
        assert one.nucleus(images[row : row + 1], draws[row : row + 1], 0.9, 1.0) == [drawn[row]]


@pytest.fixture(scope="module")
def folder(model: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model of CLIP's vocabulary, as open_clip writes it, and three pictures."""
    from clipkit.models import load

    folder = tmp_path_factory.mktemp("coca")
    checkpoint = talking.save(folder / "model.safetensors")
    load.load(f"{talking.ARCH}:{checkpoint}", device="cpu").save_model(folder / "talker")  # type: ignore[attr-defined]
    for row in range(3):
        pixels = np.random.default_rng(row).integers(0, 256, (40, 50, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{row}.png")
    lines = [json.dumps({"id": str(row), "image": f"{row}.png", "text": "before"}) for row in range(3)]
    (folder / "in.jsonl").write_text("\n".join(lines) + "\n")
    return folder


def test_through_the_verb(folder: Path, in_process: Any) -> None:
    words = ["recaption", "in.jsonl", "--method", "coca", "--model", "./talker", "--set", "generation=nucleus"]
    words += ["--set", "count=2", "--set", "max_tokens=6", "--seed", "3", "--batch-size", "2", "-q", "--no-cache"]
    done = in_process(*words, cwd=folder)
    assert done.code == 0, done.stderr
    records = [json.loads(line) for line in done.lines]
    for record in records:
        original, *new = record["texts"]
        assert original == {"text": "before", "source": "original"}
        assert 1 <= len(new) <= 2 and record["text"] == new[0]["text"]
        assert {entry["source"] for entry in new} == {"coca"} and {entry["seed"] for entry in new} == {3}
        assert record["via"]["text"] == f"recaption/coca/{new[0]['model']}"
    alone = in_process(*words, "--limit", "1", "--workers", "1", cwd=folder)
    assert alone.lines == done.lines[:1]


def test_what_cannot_write_is_refused(folder: Path, in_process: Any) -> None:
    done = in_process("recaption", "in.jsonl", "--method", "coca", cwd=folder)
    assert done.code == 2
    assert done.stderr.startswith("clipkit recaption: lite writes no captions: coca needs a CoCa model\nhint: name one")


def test_parameters_that_cannot_be() -> None:
    for given, said in (
        ({"count": 3, "beams": 2}, "2 beams give no 3 captions"),
        ({"max_tokens": 4, "min_tokens": 4}, "below max_tokens"),
        ({"top_p": 0}, "top_p"),
        ({"temperature": 0}, "temperature"),
    ):
        with pytest.raises(UsageError, match=said):
            Coca.from_settings({name: str(value) for name, value in given.items()})


def test_a_caption_ends_at_its_first_period() -> None:
    from open_clip.tokenizer import SimpleTokenizer

    captioner = Coca()
    captioner._tokenizer = SimpleTokenizer()
    for said, expected in (("a dog's ball. a cat", "a dog 's ball"), ("a dog.", "a dog"), ("a 3.5", "a 3"), (".", "")):
        assert captioner._text(captioner._tokenizer.encode(said)) == expected
