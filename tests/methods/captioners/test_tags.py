"""The carried captioner: its grammar, its list, and what it says of real pictures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from clipkit.errors import UsageError
from clipkit.methods.captioners.tags import carried, fused, listed, read_nouns, with_article
from clipkit.text.concepts import forms
from clipkit.text.wordnet import nouns


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("dog", "a dog"),
        ("umbrella", "an umbrella"),
        ("uniform", "a uniform"),
        ("hourglass", "an hourglass"),
        ("x-ray", "an x-ray"),
        ("t-shirt", "a t-shirt"),
        ("scissors", "scissors"),
        ("french fries", "french fries"),
        ("wine glass", "a wine glass"),
        ("glasses", "glasses"),
        ("bus", "a bus"),
        ("octopus", "an octopus"),
        ("knives", "knives"),
        ("children", "children"),
        ("grass", "grass"),
        ("ice cream", "ice cream"),
        ("Eiffel Tower", "Eiffel Tower"),
    ],
)
def test_articles(name: str, said: str) -> None:
    assert with_article(name) == said


def test_sentences() -> None:
    assert [listed(list("abc"[:n])) for n in (1, 2, 3)] == ["a", "a and b", "a, b and c"]
    assert fused(["dog", "ball"], " summer in\nthe park ") == "a picture of a dog and a ball: summer in the park"
    assert fused(["grass"], "") == "a picture of grass"


def test_the_list() -> None:
    names, known = carried(), nouns().senses
    assert len(names) == len(set(names)) == 519
    assert not [name for name in names if not any(form.strip() in known for form in forms(name.split()[-1]))][3:]
    said = [form for name in names for form in forms(name)]
    assert len(said) - len(set(said)) <= 4  # hardly two are one: they would share the probability


def test_files_of_concepts(tmp_path: Path) -> None:
    path = tmp_path / "nouns.txt"
    path.write_text("\ufeffred_panda\n\n# a comment\ndog\ndog\n")
    assert read_nouns(str(path)) == ["red panda", "dog"]
    path.write_text("dog\n!!\n")
    with pytest.raises(UsageError, match="no letter"):
        read_nouns(str(path))
    path.write_text("\n")
    with pytest.raises(UsageError, match="names no concept"):
        read_nouns(str(path))


def test_photos(shared_data: Path, clipkit: Any, warm: Path) -> None:
    """Of 24 kinds of object: where the picture is of one, the caption mostly says so, and never says it twice."""
    root = shared_data / "classification/caltech101"
    lines = (root / "manifest.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    kinds = ("airplane", "elephant", "beaver", "butterfly")
    some = [record for record in records if record["text"] in kinds][::8]
    bare = [{"id": record["id"], "image": record["image"]} for record in some]
    done = clipkit("recaption", "--root", root, stdin="".join(json.dumps(one) + "\n" for one in bare))
    assert done.code == 0, done.stderr
    said = [json.loads(line).get("text", "") for line in done.lines]
    right = sum(record["text"] in text for record, text in zip(some, said, strict=True))
    assert right >= 0.6 * len(some)
    named = [one | {"text": record["text"]} for one, record in zip(bare, some, strict=True)]
    done = clipkit("recaption", "--root", root, stdin="".join(json.dumps(one) + "\n" for one in named))
    for record, line in zip(some, done.lines, strict=True):
        assert json.loads(line)["text"].count(record["text"]) == 1
