"""eval retrieval as a stage and as a verb: what a record means, and figures against a plain calculation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clipkit.api import run
from clipkit.errors import ClipkitError, RecordError
from clipkit.features.embedder import open_embedder
from clipkit.stages.eval_retrieval import EvalRetrieval, captions_of
from clipkit.stream.record import Record
from tests.methods.scorers.scoring import smooth

WORDS = ["red", "a green wall", "blue water", "a yellow flower", "grey fog", "a brown dog", "night", "snow", "a map"]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for n in range(14):
        smooth(n).save(folder / f"{n:02}.png")
    (folder / "broken.png").write_bytes((folder / "00.png").read_bytes()[:300])
    return folder


def captions(n: int) -> list[str]:
    return [f"{WORDS[(n + 2 * m) % 9]} and {WORDS[(3 * n + m) % 9]}, {n}" for m in range(1 + n % 3)]


def records() -> list[dict[str, Any]]:
    return [{"id": f"p{n:02}", "image": f"{n:02}.png", "texts": captions(n)} for n in range(14)]


def measured(given: list[dict[str, Any]], photos: Path, **config: Any) -> dict[str, Any]:
    stage = EvalRetrieval({"resamples": 100, **config}, {"root": str(photos)})
    (found,) = list(run(stage, [dict(record) for record in given], workers=2, on_error="keep"))
    return found.to_dict()


def test_negative_captions_are_none() -> None:
    negative = {"text": "no dog", "negative": True}
    assert captions_of(Record({"texts": ["a", negative, {"text": "b"}]})) == ["a", "b"]
    assert captions_of(Record({"text": "a", "texts": [negative]})) == ["a"]
    with pytest.raises(RecordError, match="none of its captions"):
        captions_of(Record({"texts": [negative]}))


def values(found: dict[str, Any]) -> dict[str, float | None]:
    return {name: figure["value"] for name, figure in found["figures"].items()}


def plainly(images: np.ndarray, texts: np.ndarray, own: np.ndarray) -> dict[str, float]:
    """Ranks of distinct texts in float64, the matrix in memory; own: bool [n, m], which are whose."""
    similar = images.astype(float) @ texts.astype(float).T
    to_text = 1 + ((similar >= np.where(own, similar, -2).max(axis=1, keepdims=True)) & ~own).sum(axis=1)
    to_image = 1 + ((similar >= np.where(own, similar, -2).max(axis=0, keepdims=True)) & ~own).sum(axis=0)
    found: dict[str, float] = {}
    for way, places in (("image_to_text", to_text), ("text_to_image", to_image[np.nonzero(own)[1]])):
        found |= {f"{way}_r@{k}": float((places <= k).mean()) for k in (1, 5, 10)}
        found |= {f"{way}_mrr": float((1 / places).mean()), f"{way}_median_rank": float(np.median(places))}
    return found


def features(given: list[dict[str, Any]], root: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    embedder = open_embedder({"model": "lite"}, {"root": str(root)})
    images = embedder.encode([embedder.prepare_image(record["image"]) for record in given]).joint
    texts = list(dict.fromkeys(text for record in given for text in record["texts"]))
    own = np.array([[text in record["texts"] for text in texts] for record in given])
    return images, embedder.encode_texts(texts), own


def test_with_a_split_no_other_picture_is_opened(photos: Path) -> None:
    split = [record | {"split": "test"} for record in records()]
    more = [{"id": f"no{n}", "image": "gone.png", "texts": ["x"], "split": "train"} for n in range(40)]
    stage = EvalRetrieval({"resamples": 100, "split": "test"}, {"root": str(photos)})
    (found,) = run(stage, [*split, *more])
    assert found["figures"] == measured(records(), photos)["figures"]


def test_figures_against_a_plain_calculation(photos: Path) -> None:
    found = measured(records(), photos)
    expected = plainly(*features(records(), photos))
    assert {name: values(found)[name] for name in expected} == pytest.approx(expected, abs=1e-6)
    assert found["data"]["n"] == 14
    assert found["figures"]["text_to_image_r@1"]["n"] == sum(1 + n % 3 for n in range(14))
    assert found["figures"]["image_to_text_median_rank"]["better"] == "lower"
    assert found["tables"]["gallery"] == {"images": 14, "texts": 27, "captions": 27, "shared_texts": 0}


@pytest.mark.parametrize("manifest", ["captions/coco/pairs.jsonl", "captions/openstax/pairs.jsonl"])
def test_real_captions(manifest: str, shared_data: Path, warm: Path) -> None:
    given = [json.loads(line) for line in (shared_data / manifest).read_bytes().splitlines()][:48]
    given = [{"id": r["id"], "image": r["image"], "texts": r.get("texts") or [r["text"]]} for r in given]
    root = (shared_data / manifest).parent
    found = measured(given, root)
    expected = plainly(*features(given, root))
    assert {name: values(found)[name] for name in expected} == pytest.approx(expected, abs=1e-6)
    assert expected["text_to_image_r@10"] > 2 * 10 / len(given)  # lite knows something of photos and figures


def test_nothing_hangs_on_how_captions_are_spread_over_records(photos: Path) -> None:
    """One caption a line with its picture under another name is what all captions on one line are."""
    spread = [
        {"id": f"{record['id']}-{m}", "image": record["image"], "text": text}
        for record in records()
        for m, text in enumerate(record["texts"])
    ]
    for n, record in enumerate(spread):
        if n % 2:
            (photos / f"copy-{record['image']}").write_bytes((photos / record["image"]).read_bytes())
            record["image"] = f"copy-{record['image']}"
    together, apart = measured(records(), photos), measured(spread, photos)
    assert apart["figures"] == together["figures"] and apart["tables"] == together["tables"]
    assert apart["notices"] == ["records that show a picture again, and count as further captions of it: 13"]
    assert measured(spread[::-1], photos) == apart
    objects = [{**record, "texts": [{"text": text, "source": "x"} for text in record["texts"]]} for record in records()]
    assert measured(objects, photos) == together


def test_a_caption_of_two_pictures_is_right_for_both(photos: Path) -> None:
    given = records()[:6]
    given[3]["texts"] = ["a  green wall and red, 1 ", *given[3]["texts"]]
    given[1]["texts"] = ["a green wall and red, 1"]
    stage = EvalRetrieval({"resamples": 0, "per_sample": True}, {"root": str(photos)})
    per_sample = {}
    for record in run(stage, given, workers=1):
        found = record.to_dict()
        if "retrieval" in found:
            per_sample[found["id"]] = found["retrieval"]
    assert stage.run is not None and stage.run["tables"]["gallery"]["shared_texts"] == 1
    one, other = (per_sample[name]["text_to_image"][0] for name in ("p01", "p03"))
    assert one["rank"] == other["rank"] and one["wrong"] == other["wrong"]
    assert one["wrong"]["id"] not in ("p01", "p03")
    for found in per_sample.values():
        for caption in found["text_to_image"]:
            assert (
                (caption["rank"] == 1) == (caption["similarity"] > caption["wrong"]["similarity"])
                or caption["text"].startswith("a  green")
                or caption["text"].startswith("a green")
            )


def test_only_the_first_captions_and_galleries_by_a_hash(photos: Path) -> None:
    first = [{**record, "texts": record["texts"][:2]} for record in records()]
    assert values(measured(records(), photos, captions=2)) == values(measured(first, photos))
    notices = measured(records(), photos, captions=2)["notices"]
    assert notices == ["images with fewer than 2 captions: 5 of 14"]
    spread = [{**record, "texts": None, "text": text} for record in records() for text in record["texts"]]
    spread = [{**record, "id": f"{n:02}"} for n, record in enumerate(spread)]
    assert values(measured(spread, photos, captions=2)) == values(measured(first, photos))

    folded = measured(records(), photos, folds=4)
    assert [fold["images"] for fold in folded["tables"]["gallery"]["folds"]] == [4, 4, 3, 3]
    assert folded == measured(records()[::-1], photos, folds=4)
    assert folded["figures"] != measured(records(), photos, folds=4, seed=1)["figures"]
    assert folded["settings"] == {"captions": None, "folds": 4}
    assert values(folded)["text_to_image_r@5"] is None


def test_features_of_a_store_are_told_apart_by_reference(photos: Path, clipkit: Any, tmp_path: Path) -> None:
    spread = [
        {"id": f"{record['id']}-{m}", "image": record["image"], "text": text}
        for record in records()
        for m, text in enumerate(record["texts"])
    ]
    lines = "".join(json.dumps(record) + "\n" for record in spread)
    assert clipkit("embed", "-o", tmp_path / "store", "--root", photos, stdin=lines).code == 0
    moved = "".join(json.dumps(record | {"image": f"gone/{record['image']}"}) + "\n" for record in spread)
    done = clipkit("eval", "retrieval", "--features", tmp_path / "store", "--ci", "0", stdin=moved)
    assert done.code == 0, done.stderr
    stored, direct = json.loads(done.stdout), measured(records(), photos, resamples=0)
    assert stored["tables"]["gallery"] == direct["tables"]["gallery"] and not stored["data"]["pictures"]
    assert values(stored)["rsum"] == pytest.approx(values(direct)["rsum"], abs=15)  # they are rounded to 16 bits


def test_groups_ask_among_all(photos: Path) -> None:
    given = [record | {"camera": "ab"[n > 6]} for n, record in enumerate(records())]
    found = measured(given, photos, group="camera")
    first = found["groups"]["figures"]["a"]["image_to_text_r@5"]
    second = found["groups"]["figures"]["b"]["image_to_text_r@5"]
    assert (first["n"], second["n"]) == (7, 7)
    assert (first["value"] + second["value"]) / 2 == pytest.approx(values(found)["image_to_text_r@5"], abs=1e-6)


@pytest.mark.parametrize(
    ("record", "kind"),
    [
        ({"image": "00.png"}, "missing-field"),
        ({"image": "00.png", "text": None, "texts": []}, "no-caption"),
        ({"image": "00.png", "texts": [" ", {"text": ""}]}, "no-caption"),
        ({"image": "00.png", "texts": "a cat"}, "bad-field"),
        ({"image": "00.png", "text": 5}, "no-caption"),
        ({"text": "a cat"}, "missing-field"),
        ({"image": "broken.png", "text": "a cat"}, "image-broken"),
    ],
)
def test_records_that_cannot_be_measured(record: dict[str, Any], kind: str, photos: Path) -> None:
    stage = EvalRetrieval({"resamples": 0}, {"root": str(photos)})
    with pytest.raises(RecordError) as caught:
        list(run(stage, [record], workers=1, on_error="fail"))
    assert caught.value.kind.startswith(kind.partition("-broken")[0]), caught.value


def test_one_picture_and_too_many_folds(photos: Path) -> None:
    found = measured(records()[:1], photos)
    assert values(found)["image_to_text_median_rank"] == 1
    assert values(found)["image_to_text_r@1"] is None and values(found)["rsum"] is None
    assert found["notices"][0].startswith("no query has enough wrong answers to fail")
    with pytest.raises(ClipkitError, match="8 folds of 14 images"):
        measured(records(), photos, folds=8)


def test_what_it_is_guessed_for() -> None:
    def suits(**fields: Any) -> bool:
        return EvalRetrieval.suits(Record(fields))

    assert suits(image="a.png", text="a cat") and suits(image="a.png", texts=["a cat"])
    assert not suits(image="a.png") and not suits(text="a cat")
    assert not suits(image="a.png", text="a cat", label="cat") and not suits(image="a", text="b", negative="c")
