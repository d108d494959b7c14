"""What is remembered of labelled images, which of them are learned from, and what methods are given of those."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from safetensors.numpy import load_file, save_file

from clipkit import api
from clipkit.errors import ClipkitError, RecordError, UsageError
from clipkit.methods.adapters import experiment, files
from clipkit.models.lite import load
from clipkit.stages.support import Head, ImageRows, Labelled, gather, labelled
from clipkit.stages.train_adapter import TrainAdapter, candidates
from clipkit.stages.update_adapter import UpdateAdapter
from clipkit.stream.record import Record
from clipkit.stream.spool import Rows

BITS = st.integers(0, 5).map(lambda n: bytes([n]))


def head(role: str, label: str, name: str, content: bytes | None = None) -> Head:
    return Head(Labelled(role, label, name, f"{name}.png"), 0, content or f"{role}/{name}".encode())


def names(heads: Sequence[Head]) -> list[str]:
    return [one.said.name for one in heads]


# What a record says.


@pytest.mark.parametrize(
    ("fields", "role", "label"),
    [
        ({"label": "cat"}, "train", "cat"),
        ({"label": " cat, the\u0301  big ", "split": "train"}, "train", "cat, th\u00e9  big"),
        ({"label": ["cat"], "split": "val"}, "val", "cat"),
        ({"label": "cat", "split": None}, "train", "cat"),
        ({"label": "cat", "split": "test"}, "test", "cat"),
        ({"label": 0}, "train", "0"),
        ({"label": [12]}, "train", "12"),
    ],
)
def test_a_label_and_a_role(fields: dict[str, Any], role: str, label: str) -> None:
    said = labelled(Record({"image": "a.png", **fields}), "a")
    assert (said.role, said.label, said.name, said.image) == (role, label, "a", "a.png")


@pytest.mark.parametrize(
    ("fields", "kind", "word"),
    [
        ({}, "missing-label", "label"),
        ({"label": ""}, "missing-label", "label"),
        ({"label": None}, "missing-label", "label"),
        ({"label": ["a", "b"]}, "bad-label", "2 labels: 'a', 'b'"),
        ({"label": 3.0}, "bad-label", "a decimal: 3.0"),
        ({"label": True}, "bad-label", "a truth value: True"),
        ({"label": {"a": 1}}, "bad-label", "an object"),
        ({"label": "  "}, "bad-label", "'  '"),
        ({"label": "cat", "split": "dev"}, "bad-split", "'dev'"),
        ({"label": "dgo"}, "unknown-label", "'dgo'"),
    ],
)
def test_what_is_wrong_with_a_record_is_its_own_error(fields: dict[str, Any], kind: str, word: str) -> None:
    with pytest.raises(RecordError, match=word) as caught:
        labelled(Record({"image": "a.png", **fields}), "a", ("cat", "dog"))
    assert caught.value.kind == kind and caught.value.hint


def test_a_close_label_is_suggested_and_those_of_other_classes_need_not_be_known() -> None:
    with pytest.raises(RecordError) as caught:
        labelled(Record({"label": "dgo"}), "a", ("cat", "dog"))
    assert caught.value.message == "label 'dgo' is not one of --labels, which have 'dog'"
    with pytest.raises(RecordError, match="which have 'Dress'"):
        labelled(Record({"label": "DRESS"}), "a", ("hat", "Dress"))
    assert labelled(Record({"label": "dgo", "split": "forgetting"}), "a", ("cat", "dog")).label == "dgo"


# Rows.


@given(st.lists(st.tuples(st.sampled_from(["train", "test"]), st.text(max_size=5), st.integers(1, 3)), max_size=6))
def test_rows_give_back_what_they_were_made_of(said: list[tuple[str, str, int]]) -> None:
    layout, draw, put = ImageRows(4, 3), np.random.default_rng(0), []
    with contextlib.closing(Rows()) as rows:
        for number, (role, label, views) in enumerate(said):
            joint, behind = draw.normal(size=(views, 4)).astype("f4"), 5 * draw.normal(size=(views, 3)).astype("f4")
            put.append((Labelled(role, label, f"n{number}", ""), joint, behind))
            rows.append(f"n{number}", layout.join(*put[-1]))
        heads = layout.heads(rows)
        assert sorted(one.number for one in heads) == list(range(len(said)))
        for one in heads:
            named, joint, behind = put[one.number]
            assert one.said == named
            found = layout.features(rows, [one], len(joint))
            assert np.array_equal(found.joint, joint) and found.backbone is not None
            expected = behind / np.linalg.norm(behind, axis=1, keepdims=True)
            np.testing.assert_allclose(found.backbone, expected, rtol=1e-5)


# Which are used.

HEADS = st.lists(
    st.builds(
        head, st.sampled_from(["train", "val", "forgetting"]), st.sampled_from("ab"), st.text("xyz", max_size=2), BITS
    ),
    max_size=12,
)


@given(HEADS)
def test_no_image_is_used_under_two_labels_or_twice_for_one_purpose(heads: list[Head]) -> None:
    try:
        gathered = gather(heads, ("a", "b"))
    except ClipkitError as error:
        assert "no image to learn from" in error.message
        return
    used = [one for some in gathered.heads.values() for one in some]
    assert len(used) + sum(gathered.left_out.values()) == len(heads)
    learned = [one for one in used if one.said.role != "forgetting"]
    assert len({one.content for one in learned}) == len({(one.content, one.said.label) for one in learned})
    assert len({(one.content, one.said.role) for one in used}) == len(used)
    labels: dict[bytes, set[str]] = {}
    for one in heads:
        if one.said.role != "forgetting":
            labels.setdefault(one.content, set()).add(one.said.label)
    assert gathered.left_out.get("contradictory", 0) == sum(
        one.said.role != "forgetting" and len(labels[one.content]) > 1 for one in heads
    )


def test_contradictions_are_named_and_repeats_counted() -> None:
    heads = [
        head("train", "cat", "1", b"same"),
        head("train", "cat", "2", b"twice"),
        head("train", "cat", "3", b"twice"),
        head("train", "dog", "4"),
        head("val", "dog", "5", b"same"),
    ]
    gathered = gather(heads, None)
    assert gathered.classes == ("cat", "dog") and names(gathered.heads["train"]) == ["2", "4"]
    assert gathered.left_out == {"contradictory": 2, "repeated": 1}
    assert gathered.notices == [
        "one image is there under two labels, left out: 1 (cat) and 5 (dog)",
        "1 image is there twice under one label, used once",
    ]


def test_where_contradictions_leave_one_class_or_none_they_are_told() -> None:
    torn = [head("train", "a", "1", b"same"), head("train", "b", "2", b"same")]
    with pytest.raises(ClipkitError, match="all other images have one label, 'a'") as caught:
        gather([*torn, head("train", "a", "3")], None)
    told = "one image is there under two labels, left out: 1 (a) and 2 (b)"
    assert caught.value.hint == told
    with pytest.raises(ClipkitError, match="no image to learn from") as caught:
        gather(torn, None)
    assert caught.value.hint == told


def test_classes_without_a_training_image_are_named() -> None:
    heads = [head("train", "cat", "1"), head("train", "dog", "2"), head("test", "Dog", "3"), head("test", "cow", "4")]
    with pytest.raises(ClipkitError, match=r"^'Dog', 'cow': in the test images \(2\), but not"):
        gather(heads, None)
    assert gather(heads, ("cat", "dog", "cow", "Dog")).classes == ("cat", "dog", "cow", "Dog")


@pytest.mark.parametrize("other", ["Big Cat", "big_cat", "big  cat"])
def test_labels_that_differ_only_in_how_they_are_written_are_told(other: str) -> None:
    (notice,) = gather([head("train", "big cat", "1"), head("train", other, "2")], None).notices
    assert repr(other) in notice and "'big cat'" in notice


# The stage.


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight pictures of each of three kinds, CLASS-N.png."""
    folder = tmp_path_factory.mktemp("photos")
    for number in range(8):
        noise = np.random.default_rng(number).integers(0, 256, (48, 64, 3), dtype=np.uint8)
        kinds = {"noise": noise, "stripes": np.tile(noise[:1], (48, 1, 1)), "plain": np.full_like(noise, noise[0, 0])}
        for name, pixels in kinds.items():
            Image.fromarray(pixels).save(folder / f"{name}-{number}.png")
    return folder


def records(photos: Path, few: int = 8) -> list[dict[str, Any]]:
    paths = sorted(path for path in photos.glob("*.png") if int(path.stem[-1]) < few)
    return [{"id": path.name, "image": str(path), "label": path.stem[:-2]} for path in paths]


def test_only_what_a_draw_takes_is_held_and_it_is_what_all_would_give(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: list[int] = []
    load_rows = ImageRows.features

    def counted(self: ImageRows, rows: Rows, heads: Sequence[Head], views: int = 1) -> Any:
        held.append(len(heads))
        return load_rows(self, rows, heads, views)

    monkeypatch.setattr(ImageRows, "features", counted)
    config = {"method": "prototypes", "shots": 2, "seeds": 2}
    (some,) = api.run(TrainAdapter(config), records(photos))
    assert 6 < held[0] <= 12, "two draws of two images of three classes"
    monkeypatch.setattr(TrainAdapter, "_drawn", lambda self, heads, task: heads)
    (everyone,) = api.run(TrainAdapter(config), records(photos))
    assert held[1] == 24 and some.encode() == everyone.encode()


def test_methods_are_given_what_an_independent_calculation_gives(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given_: list[experiment.Sets] = []
    run = experiment.run

    def watched(candidates: Any, sets: experiment.Sets, **more: Any) -> experiment.Result:
        given_.append(sets)
        return run(candidates, sets, **more)

    monkeypatch.setattr(experiment, "run", watched)
    some = records(photos, 4)
    config = {"method": "gda", "views": 3, "on": "backbone", "labels": ["stripes", "plain", "noise"]}
    list(api.run(TrainAdapter(config), some))
    support, encoder = given_[0].support, load()
    assert support.views == 3 and list(support.names) == [record["id"] for record in some]
    assert [support.task.classes[label] for label in support.labels] == [record["label"] for record in some]
    with Image.open(some[0]["image"]) as picture:
        joint, behind = encoder.encode_images([encoder.preprocess(picture.convert("RGB"))], backbone=True)
    assert behind is not None and support.features is not None and support.features.backbone is not None
    assert np.array_equal(support.plain.joint[0], joint[0])
    np.testing.assert_allclose(support.features.backbone[0], behind[0] / np.linalg.norm(behind[0]), atol=1e-6)
    assert len({row.tobytes() for row in support.features.joint[:3]}) == 3, "views differ"
    text = encoder.encode_texts(["a photo of a stripes."])[0]
    np.testing.assert_allclose(support.task.text[0], text, atol=1e-6)
    assert (support.task.scale, support.task.space) == (encoder.logit_scale, "backbone")


def test_refusals_come_before_anything_is_read() -> None:
    with pytest.raises(UsageError, match="--views are made of the pictures"):
        TrainAdapter({"features": "store", "views": 2})
    with pytest.raises(UsageError, match="lora trains on the pictures"):
        TrainAdapter({"features": "store", "method": "lora"})
    with pytest.raises(UsageError, match="joint features"):
        TrainAdapter({"method": "coop", "on": "backbone"})
    with pytest.raises(UsageError, match="several methods"):
        candidates("auto", ["alpha=2"], 1)
    with pytest.raises(UsageError, match="twice"):
        candidates("gda", ["alpha=2", "alpha=3"], 1)
    assert len(candidates("auto", [], 1)) > 3


def test_an_update_is_a_fit_on_everything(photos: Path, tmp_path: Path) -> None:
    def fitted(given_: list[dict[str, Any]], name: str) -> Path:
        stage = TrainAdapter({"method": "prototypes", "settings": ["alpha=9"]})
        list(api.run(stage, given_))
        stage.save(str(tmp_path / name))
        return tmp_path / name

    everything = records(photos)
    first = [record for record in everything if record["label"] != "stripes" and record["id"][-5] in "0123"]
    rest = [record for record in everything if record not in first]
    old = fitted(first, "old")
    stage = UpdateAdapter({"update": str(old)})
    (said,) = api.run(stage, [*rest, *({**record, "split": "test"} for record in first)])
    stage.save(str(tmp_path / "new"))
    assert said["added"] == ["stripes"] and said["images"] == {"train": 16, "test": 8}
    new, whole = files.load(tmp_path / "new").adapter, files.load(fitted(everything, "whole")).adapter
    assert new.task_.classes == whole.task_.classes == ("noise", "plain", "stripes")
    assert np.array_equal(new.state_["counts"], whole.state_["counts"])
    np.testing.assert_allclose(new.state_["sums"], whole.state_["sums"], atol=1e-9)
    assert new.task_.prompts == whole.task_.prompts and np.array_equal(new.task_.text, whole.task_.text)


def test_an_update_of_a_damaged_adapter_is_refused_in_words(photos: Path, tmp_path: Path) -> None:
    stage = TrainAdapter({"method": "prototypes"})
    list(api.run(stage, records(photos, 2)))
    stage.save(str(tmp_path / "old"))
    file = tmp_path / "old" / files.TENSORS
    held = load_file(file)
    for sums in ({}, {"state.sums": held["state.sums"][:, :5]}, {"state.sums": held["state.sums"][:2]}):
        save_file({"text": held["text"], "state.counts": held["state.counts"], **sums}, file)
        with pytest.raises(ClipkitError, match="old is damaged: "):
            list(api.run(UpdateAdapter({"update": str(tmp_path / "old")}), records(photos, 2)))


def test_an_update_of_what_needs_its_old_images_is_refused(photos: Path, tmp_path: Path) -> None:
    stage = TrainAdapter({"method": "ridge", "settings": ["alpha=9", "strength=1"]})
    list(api.run(stage, records(photos, 2)))
    stage.save(str(tmp_path / "old"))
    with pytest.raises(UsageError, match="ridge, which needs the old images"):
        list(api.run(UpdateAdapter({"update": str(tmp_path / "old")}), []))


def test_what_a_row_hangs_on_is_in_the_fingerprint(photos: Path) -> None:
    def printed(**config: Any) -> str:
        stage = TrainAdapter(config)
        stage.setup()
        try:
            return json.dumps(stage.fingerprint())
        finally:
            stage.close()

    plain = printed()
    assert plain == printed(method="ridge", shots=3, seeds=2, seed=7, settings=["alpha=1"])
    others = [printed(views=2), printed(views=2, seed=1), printed(on="joint"), printed(labels=["a", "b"])]
    assert len({plain, *others}) == 5


@pytest.fixture(scope="module")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> str:
    pytest.importorskip("open_clip")
    import torch

    from tests.models import tiny

    folder = tmp_path_factory.mktemp("model")
    tiny.register(folder)
    model = tiny.make("tiny-vit")
    with torch.no_grad():  # as in a trained model, weights are no ones and zeros
        for value in model.parameters():
            value.add_(0.02 * torch.randn_like(value))
    return f"tiny-vit:{tiny.save(model, folder / 'model.safetensors')}"


@pytest.mark.parametrize(("method", "settings"), [("lora", ["steps=2"]), ("coop", ["epochs=1", "length=2", "crops=0"])])
def test_through_the_model(method: str, settings: list[str], tiny_model: str, photos: Path, tmp_path: Path) -> None:
    config = {"method": method, "settings": settings, "model": tiny_model, "labels": ["noise", "stripes"]}
    two = [record for record in records(photos) if record["label"] != "plain"]
    others = [{**record, "split": "forgetting"} for record in records(photos, 2) if record["label"] == "plain"]
    stage = TrainAdapter(config)
    (said,) = api.run(stage, [*two, *others])
    stage.save(str(tmp_path / "adapter"))
    saved = files.load(tmp_path / "adapter")
    assert saved.adapter.name == said["method"] == method and said["space"] == "joint"
    assert said["forgetting"]["images"] == 2
    assert said["selection"][0]["on"] == ("held-out" if method == "coop" else "fixed"), (
        "nothing is trained twice for show"
    )


def test_who_waits_for_a_training_sees_which_step_it_is_at_and_then_what_to_type(
    tiny_model: str, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    class Watched(TrainAdapter):
        def __setattr__(self, name: str, value: Any) -> None:
            seen.append(re.sub(r"[0-9.]+$", "N", value)) if name == "doing" else None
            super().__setattr__(name, value)

    config = {"method": "coop", "settings": ["epochs=1", "length=2", "crops=0"], "model": tiny_model, "seeds": 2}
    two = [record for record in records(photos, 2) if record["label"] != "plain"]
    stage = Watched(config, {"adapter": "my adapter"})
    list(api.run(stage, two))
    assert seen == ["step 1 of 1, loss N", "training 2, step 1 of 1, loss N"]
    assert stage.results[-1] == f"use it: clipkit apply 'my adapter' SOURCE --model {tiny_model}"


def test_needing_the_model_lite_is_refused(photos: Path) -> None:
    with pytest.raises(ClipkitError, match="not lite"):
        list(api.run(TrainAdapter({"method": "lora"}), records(photos, 2)))
