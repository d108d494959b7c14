"""concepts synonyms: the label file that zeroshot reads, and the records of what was chosen."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clipkit.api import run
from clipkit.errors import UsageError
from clipkit.models.load import load
from clipkit.stages.synonyms import Synonyms
from clipkit.text.classifier import classifier
from clipkit.text.concepts import ConceptMatcher
from clipkit.text.labels import Labels, parse_labels

SAMPLES = Path(__file__).parents[2] / "samples"
WORDS = {"car": ["automobile", "auto"], "sofa": ["couch"]}
CAPTIONS = ["an auto", "two autos", "a car", "COUCHES", "a couch on a sofa", "a carpet", "autobahn", ""]


def records(texts: list[str]) -> list[dict[str, Any]]:
    return [{"id": str(number), "text": text} for number, text in enumerate(texts)]


def chosen(texts: list[str], **config: Any) -> list[dict[str, Any]]:
    stage = Synonyms({"labels": ["car", "sofa", "yurt"], "synonyms": WORDS, **config})
    return [record.to_dict() for record in run(stage, records(texts))]


def test_by_hand() -> None:
    car, sofa, yurt = chosen(CAPTIONS)
    assert (car["synonym"], car["counts"]) == ("auto", {"car": 1, "automobile": 0, "auto": 2})
    assert (sofa["synonym"], sofa["counts"]) == ("couch", {"sofa": 1, "couch": 2})
    assert (yurt["synonym"], yurt["counts"]) == ("yurt", {"yurt": 0})


def test_the_order_of_the_captions_is_nothing() -> None:
    shuffled = random.Random(1).sample(CAPTIONS, len(CAPTIONS))
    assert chosen(shuffled) == chosen(CAPTIONS)


def test_the_label_file_gives_the_class_features_of_the_chosen_names(clipkit: Any, tmp_path: Path) -> None:
    captions = "".join(json.dumps(record) + "\n" for record in records(CAPTIONS))
    (tmp_path / "words.json").write_text(json.dumps(WORDS))
    words = ["concepts", "synonyms", "--labels", "car,sofa,yurt", "--synonyms", "words.json", "-o", "labels.json"]
    done = clipkit(*words, "--template", "a {}", "--template", "the {}.", stdin=captions)
    assert (done.code, done.stdout) == (0, ""), done.stderr
    labels = parse_labels(f"@{tmp_path / 'labels.json'}")
    assert labels.names == ("car", "sofa", "yurt")
    encoder = load("lite")
    renamed = classifier(encoder, Labels(("auto", "couch", "yurt")), ["a {}", "the {}."])
    np.testing.assert_array_equal(classifier(encoder, labels, encoder.default_templates), renamed)


def test_the_template_is_what_zeroshot_takes_by_itself() -> None:
    assert tuple(Synonyms.defaults["templates"]) == load("lite").default_templates


def test_zeroshot_reads_it(clipkit: Any, tmp_path: Path) -> None:
    words = ["concepts", "synonyms", "--labels", "feline,car", "-o", "labels.json", "-q"]
    (tmp_path / "words.json").write_text('{"feline": ["cat"]}')
    assert clipkit(*words, "--synonyms", "words.json", stdin='{"text":"a cat"}\n').code == 0
    done = clipkit("zeroshot", SAMPLES / "cat.jpg", "--labels", "@labels.json")
    assert json.loads(done.stdout)["pred"]["label"] == "feline", done.stderr


def test_what_stopped_leaves_no_label_file(clipkit: Any, tmp_path: Path) -> None:
    (tmp_path / "labels.json").write_text("what was there")
    done = clipkit(
        "concepts", "synonyms", "--labels", "car", "-o", "labels.json", stdin='{"text":"a car"}\n{"text":3}\n'
    )
    assert done.code == 1
    assert "stdin:2: field 'text' is not a string" in done.stderr
    assert [path.name for path in tmp_path.iterdir() if path.is_file() and "lock" not in path.name] == ["labels.json"]
    assert (tmp_path / "labels.json").read_text() == "what was there"


def test_classes_with_descriptions_are_refused(clipkit: Any, tmp_path: Path) -> None:
    (tmp_path / "labels.json").write_text('{"car": ["a car"]}')
    done = clipkit("concepts", "synonyms", "--labels", "@labels.json", stdin="")
    assert done.code == 2
    assert "name the classes alone" in done.stderr


def test_no_class_is_lost_and_a_bad_name_is_told() -> None:
    assert [row["id"] for row in chosen([])] == ["car", "sofa", "yurt"]
    with pytest.raises(UsageError, match="no letter"):
        chosen([], labels=["car", "?"])


def test_counts_are_those_of_a_search_for_one_name_at_a_time(shared_data: Path, clipkit: Any) -> None:
    """On real captions, against a matcher a name."""
    done = clipkit(
        "concepts",
        "synonyms",
        shared_data / "alttext/cc3m_val.parquet",
        "--labels",
        "airplane,laptop,ship,dog,hat",
        "--limit",
        "3000",
    )
    texts = [
        json.loads(line)["text"]
        for line in clipkit("cat", shared_data / "alttext/cc3m_val.parquet", "--limit", "3000").lines
    ]
    rows = [json.loads(line) for line in done.lines]
    assert rows[0]["counts"]["plane"] > 0
    for row in rows:
        assert row["synonym"] == max(row["counts"], key=row["counts"].__getitem__)
        for name, count in row["counts"].items():
            one = ConceptMatcher([(name,)])
            assert count == sum(bool(one.find(text)) for text in texts)
