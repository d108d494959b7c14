"""concepts retrieve end to end: against the definition, with labels that are there, images, stores, kill and resume."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from clipkit.api import run
from clipkit.errors import RecordError
from clipkit.models.load import load
from clipkit.stages.retrieve import Retrieve, RetrieveRandom
from clipkit.stream.hashing import ticket
from clipkit.text.classifier import classifier
from clipkit.text.concepts import ConceptMatcher
from clipkit.text.labels import Labels
from tests.killing import killed

WORDS = {"car": ["auto"], "sofa": ["couch"], "dog": []}
NAMES = tuple(WORDS)
PLACES = ["in a park", "of 1930", "on the beach", "at night", "for sale", "by the sea", "and a carpet", "in the rain"]


def captions() -> list[dict[str, Any]]:
    """Of each class, of two of them at once, and of none."""
    things = ["a car", "two autos", "a couch", "a dog on a sofa", "dogs in a car", "the dog", "a yurt", "nothing"]
    texts = [f"{thing} {place}" for thing in things for place in PLACES]
    return [{"id": f"{number:03d}", "text": text, "x": 1.5} for number, text in enumerate(texts)]


def retrieved(given: list[dict[str, Any]], workers: int = 2, **config: Any) -> list[dict[str, Any]]:
    stage = Retrieve({"labels": list(NAMES), "synonyms": WORDS, "per_class": 5, **config})
    return [record.to_dict() for record in run(stage, given, workers=workers)]


def by_definition(given: list[dict[str, Any]], per_class: int) -> dict[str, tuple[str, float]]:
    """id -> (class, cosine): of all pairs that are left the best is taken, again and again."""
    encoder = load("lite")
    classes = classifier(encoder, Labels(NAMES), encoder.default_templates).astype(float)
    pairs = []
    for record in given:
        feature = encoder.encode_texts([record["text"]])[0].astype(float)
        drawn = ticket(record["id"], 0, "concepts retrieve")[:8]
        for number, (name, others) in enumerate(WORDS.items()):
            if ConceptMatcher([(name, *others)]).find(record["text"]):
                pairs.append((-round(float(feature @ classes[number]), 6), drawn, number, record["id"]))
    taken: dict[str, tuple[str, float]] = {}
    for score, _, number, name in sorted(pairs):
        if name not in taken and sum(to == NAMES[number] for to, _ in taken.values()) < per_class:
            taken[name] = NAMES[number], -score
    return taken


@pytest.mark.parametrize("per_class", [1, 13])
def test_as_defined(per_class: int) -> None:
    found = retrieved(captions(), per_class=per_class)
    assert {r["id"]: (r["label"], r["scores"]["retrieve"]) for r in found} == by_definition(captions(), per_class)
    assert [r["id"] for r in found] == sorted(r["id"] for r in found)  # in the order of the input


def test_the_order_the_workers_and_the_batches_are_nothing() -> None:
    together = sorted(retrieved(captions()), key=lambda r: r["id"])
    shuffled = random.Random(0).sample(captions(), 64)
    assert sorted(retrieved(shuffled, workers=1, batch_size=1), key=lambda r: r["id"]) == together
    assert sorted(retrieved(shuffled, workers=3, batch_size=7), key=lambda r: r["id"]) == together


def test_a_description_by_a_name_that_is_not_searched_for_is_said() -> None:
    """So it is where a file of labels comes from `concepts synonyms --synonyms` and these are not given again."""
    labels = {"car": ["a photo of an automobile."], "yurt": ["a photo of a tipi.", "it is round"], "dog": ["a dog."]}
    said = "1 described by names that no caption was searched for, which --synonyms FILE would give: yurt"
    for synonyms, expected in ((None, True), ({"yurt": ["tipi"]}, False), ({"car": ["auto"]}, False)):
        stage = RetrieveRandom({"labels": labels, "synonyms": synonyms})
        list(run(stage, captions()))
        assert (said in stage.notices) == expected


def test_each_class_has_as_many_as_asked_for_or_as_there_are() -> None:
    stage = Retrieve({"labels": [*NAMES, "yurt", "igloo"], "synonyms": WORDS, "per_class": 10})
    labels = [record["label"] for record in run(stage, captions())]
    assert {name: labels.count(name) for name in stage.labels.names} == {
        "car": 10,
        "sofa": 10,
        "dog": 10,
        "yurt": 8,
        "igloo": 0,
    }
    assert stage.facts["classes"]["dog"] == {"named": 24, "kept": 10}
    assert stage.notices == ["fewer than 10 for 2 of 5 classes: igloo 0, yurt 8"]


def test_a_label_that_is_there() -> None:
    """It decides where it is a class that the caption names; another is not written over."""
    both = [
        {"id": str(number), "text": "a dog in a car", "label": label} for number, label in enumerate(["dog", "car"])
    ]
    assert [record["label"] for record in retrieved(both)] == ["dog", "car"]
    assert retrieved([{"id": "0", "text": "a dog", "label": ["dog"]}])[0]["label"] == ["dog"]
    assert retrieved([{"id": "0", "text": "a yurt", "label": "tent"}]) == []
    with pytest.raises(RecordError, match="label is 'cat' already, and its text names 'dog'") as caught:
        retrieved([{"id": "0", "text": "a dog", "label": "cat"}])
    assert caught.value.kind == "label-exists"


def test_a_score_of_another_is_not_written_over() -> None:
    record = {"id": "0", "text": "a dog", "scores": {"retrieve": 0.1}}
    with pytest.raises(RecordError, match="is there already"):
        retrieved([record])
    (first,) = retrieved([{"id": "0", "text": "a dog"}])
    assert retrieved([first]) == [first]  # its own is


def test_captions_that_stand_for_classes_in_a_label_file(tmp_path: Path, clipkit: Any) -> None:
    """The prompts of `concepts synonyms` are what captions are compared with; names and synonyms what is looked for."""
    (tmp_path / "labels.json").write_text('{"car": ["one"], "dog": ["a dog", "the dog"]}')
    given = '{"id":"1","text":"an old car"}\n{"id":"2","text":"a dog"}\n'
    done = clipkit("concepts", "retrieve", "--labels", "@labels.json", stdin=given)
    encoder = load("lite")
    one, old, a, the = encoder.encode_texts(["one", "an old car", "a dog", "the dog"]).astype(float)
    mean = (a + the) / np.linalg.norm(a + the)
    scores = [json.loads(line)["scores"]["retrieve"] for line in done.lines]
    assert scores == pytest.approx([old @ one, a @ mean], abs=2e-6)


def test_at_random_without_a_model() -> None:
    stage = RetrieveRandom({"labels": list(NAMES), "synonyms": WORDS, "per_class": 5})
    found = [record.to_dict() for record in run(stage, captions())]
    assert sorted(record["label"] for record in found) == ["car"] * 5 + ["dog"] * 5 + ["sofa"] * 5
    assert all("scores" not in record for record in found)
    other = RetrieveRandom({"labels": list(NAMES), "synonyms": WORDS, "per_class": 5, "seed": 1})
    assert [record["id"] for record in run(other, captions())] != [record["id"] for record in found]


def test_random_loads_nothing(tmp_path: Path) -> None:
    program = """if True:
        import sys
        from clipkit import cli
        cli.run(["concepts", "retrieve", "--labels", "cat", "--rank", "random"])
        assert not {"onnxruntime", "torch"} & set(sys.modules)
    """
    done = subprocess.run([sys.executable, "-P", "-c", program], input=b'{"text":"a cat"}\n', capture_output=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["label"] == "cat"


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Twelve pictures of dogs, one of them broken, and of a yurt that is not there."""
    draw = np.random.default_rng(0)
    rows = []
    for number in range(12):
        Image.fromarray(draw.integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(tmp_path / f"{number}.png")
        rows.append({"id": str(number), "image": f"{number}.png", "text": f"dog {number}"})
    (tmp_path / "3.png").write_bytes(b"no picture")
    rows += [{"id": "x", "image": "none.png", "text": "a yurt"}, {"id": "y", "text": "no picture at all"}]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def test_by_image(pictures: Path, clipkit: Any) -> None:
    """Only images whose caption names a class are opened; a broken one takes nobody's place."""
    done = clipkit("concepts", "retrieve", "in.jsonl", "--labels", "dog", "--rank", "image", "--per-class", "11")
    rows = [json.loads(line) for line in done.lines]
    assert done.code == 3
    assert [row["id"] for row in rows] == [str(number) for number in range(12)]
    assert [row["id"] for row in rows if "error" in row] == ["3"]
    encoder = load("lite")
    feature = encoder.encode_images([encoder.preprocess(Image.open(pictures / "0.png"))])[0][0].astype(float)
    prompt = classifier(encoder, Labels(("dog",)), encoder.default_templates)[0]
    assert rows[0]["scores"]["retrieve"] == pytest.approx(float(feature @ prompt), abs=1e-6)


@pytest.mark.parametrize("rank", ["text", "image"])
def test_from_a_store(rank: str, pictures: Path, clipkit: Any) -> None:
    assert clipkit("embed", "in.jsonl", "-o", "store", "--on-error", "skip", "--lenient", "-q").code == 0
    for picture in pictures.glob("*.png"):
        picture.unlink()
    good = [line for line in (pictures / "in.jsonl").read_text().splitlines() if '"3"' not in line]
    words = ["concepts", "retrieve", "-", "--labels", "dog", "--per-class", "4", "--rank", rank, "--features", "store"]
    done = clipkit(*words, stdin="\n".join(good[:11]))
    assert (done.code, len(done.lines)) == (0, 4), done.stderr


def test_into_a_pack(pictures: Path, clipkit: Any) -> None:
    done = clipkit("concepts", "retrieve", "in.jsonl", "--labels", "dog", "--per-class", "3")
    packed = clipkit("pack", "-o", "packed", stdin=done.stdout)
    assert packed.code == 0, packed.stderr
    rows = [json.loads(line) for line in clipkit("cat", "packed/00000.tar").lines]
    assert [row["label"] for row in rows] == ["dog"] * 3


def test_options_that_do_not_go_together(clipkit: Any) -> None:
    for more, said in (
        (["--rank", "random", "--template", "a {}"], "--rank random uses no --template"),
        (["--rank", "random", "--features", "x"], "--rank random uses no --features"),
        (["--rank", "random", "--model", "lite"], "--rank random uses no --model"),
        (["--seed", "1"], "--seed is for --rank random"),
        (["--shard", "1/2"], "a part cannot decide"),
        (["--synonyms", "none.json"], "--synonyms: cannot read"),
    ):
        done = clipkit("concepts", "retrieve", "--labels", "cat", *more, stdin="")
        assert (done.code, said in done.stderr) == (2, True), done.stderr


def test_killed_and_resumed(clipkit: Any, tmp_path: Path) -> None:
    """How many are kept may change in between, as that only decides."""
    given = "".join(json.dumps(record) + "\n" for record in captions())
    base = ["concepts", "retrieve", "-", "--labels", ",".join(NAMES), "--no-cache", "--per-class"]
    fresh = clipkit(*base, "6", "-o", "fresh.jsonl", stdin=given)
    killed([*base, "2"], "".join(given.splitlines(keepends=True)[:30]), tmp_path, after=1500)
    resumed = clipkit(*base, "6", "-o", "out.jsonl", "--report", "r.json", "--resume", stdin=given)
    assert resumed.code == fresh.code == 0, resumed.stderr
    assert json.loads((tmp_path / "r.json").read_text())["run"]["reused"] >= 1
    assert (tmp_path / "out.jsonl").read_bytes() == (tmp_path / "fresh.jsonl").read_bytes()
