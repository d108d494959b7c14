"""Adapters in files: what is damaged, foreign or hostile is told apart, and what was there stays if writing fails."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from clipkit.errors import ClipkitError, UsageError
from clipkit.methods import ADAPTERS
from clipkit.methods.adapters import files
from clipkit.methods.adapters.data import Features, unit
from clipkit.methods.adapters.folding import trusted
from clipkit.methods.adapters.prototypes import Prototypes
from tests.methods.adapters.synthetic import MODEL, World


@pytest.fixture
def made(tmp_path: Path) -> Path:
    files.save(tmp_path / "a.adapter", adapter(), MODEL, {"shots": 3})
    return tmp_path / "a.adapter"


def adapter(seed: int = 0) -> Prototypes:
    return Prototypes().fit(World(seed, classes=4).samples(3))


def everything(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_the_same_adapter_is_the_same_bytes(made: Path, tmp_path: Path) -> None:
    files.save(tmp_path / "b.adapter", adapter(), MODEL, {"shots": 3})
    assert everything(made) == everything(tmp_path / "b.adapter")
    one, other = files.load(made), files.load(tmp_path / "b.adapter")
    assert one.via == other.via == f"prototypes/{one.digest}/{MODEL}"
    files.save(tmp_path / "c.adapter", adapter(1), MODEL, {"shots": 3})
    assert files.load(tmp_path / "c.adapter").digest != one.digest


def test_it_says_what_it_was_told(made: Path) -> None:
    said = json.loads((made / "adapter.json").read_text())
    assert said["shots"] == 3 and said["method"] == "prototypes" and said["model"]["digest"] == MODEL.digest
    assert files.load(made).said == said


def edit(folder: Path, **values: object) -> None:
    said = json.loads((folder / "adapter.json").read_text())
    (folder / "adapter.json").write_text(json.dumps(said | values))


def without(folder: Path, *names: str) -> None:
    said = json.loads((folder / "adapter.json").read_text())
    (folder / "adapter.json").write_text(json.dumps({name: said[name] for name in said if name not in names}))


def tensors(folder: Path, **values: np.ndarray) -> None:
    held = load_file(folder / "adapter.safetensors") | {
        name.replace("__", "."): value for name, value in values.items()
    }
    save_file(held, folder / "adapter.safetensors")


def text(folder: Path, old: str, new: str) -> None:
    said = (folder / "adapter.json").read_text()
    assert old in said
    (folder / "adapter.json").write_text(said.replace(old, new))


def cut(path: Path, size: int) -> None:
    path.write_bytes(path.read_bytes()[:size])


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "no json": (lambda at: (at / "adapter.json").unlink(), "no adapter: it has no adapter.json"),
    "empty json": (lambda at: (at / "adapter.json").write_bytes(b""), "is damaged"),
    "half a json": (lambda at: cut(at / "adapter.json", 100), "is damaged"),
    "no text": (lambda at: (at / "adapter.json").write_bytes(b"\xff\xfe{}"), "is damaged"),
    "another kind": (lambda at: edit(at, kind="features"), "is no adapter"),
    "a list": (lambda at: (at / "adapter.json").write_text("[]"), "is damaged"),
    "newer": (lambda at: edit(at, format=99), "was written by a newer clipkit"),
    "no classes": (lambda at: without(at, "classes"), "is damaged.*classes"),
    "classes twice": (lambda at: edit(at, classes=["a", "a", "b", "c"]), "is damaged"),
    "a class too many": (
        lambda at: edit(at, classes=["a", "b", "c", "d", "e"]),
        "4 rows of text features for 5 classes",
    ),
    "another space": (lambda at: edit(at, space="outer"), "is damaged.*space"),
    "a parameter it hasn't": (lambda at: edit(at, params={"beta": 1}), "prototypes has no parameter beta"),
    "a parameter is a text": (lambda at: edit(at, params={"alpha": "1"}), "damaged: alpha of prototypes: .*got `str`"),
    "a parameter is too low": (lambda at: edit(at, params={"alpha": -1}), "alpha of prototypes is at least 0, not -1"),
    "a chosen one is a list": (
        lambda at: edit(at, chosen={"alpha": [1]}),
        "damaged: alpha of prototypes: .*got `array`",
    ),
    "a number past all": (lambda at: text(at, '"seed": 0', f'"seed": 1{"0" * 5000}'), "is damaged"),
    "a number past all, unread": (lambda at: text(at, '"shots": 3', f'"shots": 1{"0" * 5000}'), "is damaged"),
    "no number": (lambda at: text(at, '"blend": 1.0', '"blend": NaN'), "is damaged"),
    "an endless nest": (lambda at: text(at, '"shots": 3', f'"shots": {"[" * 99999}{"]" * 99999}'), "is damaged"),
    "too much of it": (lambda at: edit(at, blend=1.5), "is damaged: blend is 0 to 1, not 1.5"),
    "a class without prompts": (lambda at: edit(at, prompts=[["a"], [], ["b"], ["c"]]), "prompts of 3 of 4 classes"),
    "prompts too few": (lambda at: edit(at, prompts=[["a"]]), "prompts of 1 of 4 classes"),
    "templates of numbers": (lambda at: edit(at, templates=[1]), "is damaged.*templates"),
    "scale is a text": (lambda at: edit(at, scale="22"), "is damaged.*scale"),
    "unknown method": (lambda at: edit(at, method="prototype"), "there is no 'prototype' among the adapters"),
    "no tensors": (lambda at: (at / "adapter.safetensors").unlink(), "is damaged.*adapter.safetensors"),
    "empty tensors": (lambda at: (at / "adapter.safetensors").write_bytes(b""), "is damaged.*adapter.safetensors"),
    "half the tensors": (lambda at: cut(at / "adapter.safetensors", 900), "is damaged.*adapter.safetensors"),
    "noise": (lambda at: (at / "adapter.safetensors").write_bytes(bytes(range(256)) * 9), "is damaged"),
    "a huge header": (lambda at: (at / "adapter.safetensors").write_bytes(b"\xff" * 8 + b"{}"), "is damaged"),
    "a pickle": (lambda at: (at / "adapter.safetensors").write_bytes(pickle.dumps({"text": 1})), "is damaged"),
    "no text features": (lambda at: save_file({"x": np.ones(2)}, at / "adapter.safetensors"), "is damaged.*text"),
    "flat text features": (lambda at: tensors(at, text=np.ones(4, np.float32)), "is damaged"),
    "not finite": (lambda at: tensors(at, state__sums=np.full((4, 64), np.nan)), "is damaged.*not finite"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_is_damaged_is_refused_in_words(made: Path, damage: str) -> None:
    break_it, message = DAMAGES[damage]
    break_it(made)
    with pytest.raises(ClipkitError, match=message) as caught:
        files.load(made)
    assert caught.value.hint


ODD = [True, "x", "1", [], {}, [1, 2], -1, 0, 5, 1.5, -1e308, 1e308, 10**30, 10**400]
RESHAPED: list[Callable[[np.ndarray], np.ndarray]] = [
    lambda x: x[:1],
    lambda x: x[:0],
    lambda x: np.concatenate([x, x]),
    np.ravel,
    np.transpose,
    lambda x: x.ravel()[0].reshape(()),
    lambda x: np.full_like(x, np.finfo(x.dtype).max if x.dtype.kind == "f" else np.iinfo(x.dtype).max),
    lambda x: np.full_like(x, -1),
    lambda x: x.astype(bool),
]


@pytest.mark.parametrize("name", [entry.name for entry in ADAPTERS if ADAPTERS.get(entry.name).needs == "features"])
def test_whatever_stands_in_it_there_is_an_answer_or_a_sentence(name: str, tmp_path: Path) -> None:
    """Values and arrays that `save` would not have written; the answers may be wrong, but they are finite."""
    world = World(3, classes=4)
    folder = tmp_path / "a.adapter"
    files.save(folder, ADAPTERS.get(name)().fit(world.samples(4), world.samples(2)), MODEL, {})
    one = Features(unit(np.ones((1, 64))))

    def use() -> None:
        try:
            saved = files.load(folder)
            with trusted(str(folder)):
                head = saved.adapter.fold()
                row = head.logits(one) if head else saved.adapter.logits(one)
                if row.shape != (1, 4) or not np.isfinite(row).all():
                    raise ValueError("these are no logits")
        except ClipkitError:
            pass

    use()
    whole = (folder / "adapter.json").read_text()
    said = json.loads(whole)
    for part in ("params", "chosen"):
        for key in said["params"]:
            for value in ODD:
                edit(folder, **{part: said[part] | {key: value}})
                use()
    (folder / "adapter.json").write_text(whole)
    held = load_file(folder / "adapter.safetensors")
    for key, array in held.items():
        for change in RESHAPED:
            save_file(held | {key: np.ascontiguousarray(change(array))}, folder / "adapter.safetensors")
            use()
        save_file({other: held[other] for other in held if other != key}, folder / "adapter.safetensors")
        use()


def test_nothing_in_it_is_run(made: Path, tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path(tmp_path / "ran").touch, ())

    for name in ("adapter.safetensors", "adapter.json"):
        kept = (made / name).read_bytes()
        (made / name).write_bytes(pickle.dumps(Bomb()))
        with pytest.raises(ClipkitError):
            files.load(made)
        (made / name).write_bytes(kept)
    np.save(tmp_path / "object.npy", np.array([Bomb()], object), allow_pickle=True)
    (made / "adapter.safetensors").write_bytes((tmp_path / "object.npy").read_bytes())
    with pytest.raises(ClipkitError):
        files.load(made)
    assert not (tmp_path / "ran").exists()


def test_a_path_that_is_nothing_or_a_file(made: Path, tmp_path: Path) -> None:
    with pytest.raises(ClipkitError, match="no such folder"):
        files.load(tmp_path / "nothing")
    with pytest.raises(ClipkitError, match="is no adapter"):
        files.load(made / "adapter.json")


def test_another_model_is_refused(made: Path) -> None:
    saved = files.load(made)
    saved.require(MODEL)
    saved.require(replace(MODEL, name="the same by another name"))
    with pytest.raises(ClipkitError, match=f"was made for {MODEL}, and this is a-model@") as caught:
        saved.require(replace(MODEL, activation="quickgelu"))
    assert caught.value.hint == "give that model's folder with --model", "of a folder only its name is known"
    named = replace(saved, model=files.Model("lite", saved.model.digest))
    with pytest.raises(ClipkitError) as caught:
        named.require(replace(MODEL, activation="quickgelu"))
    assert caught.value.hint == "leave --model out, or give lite"


def test_an_adapter_is_replaced(made: Path) -> None:
    before = everything(made)
    files.save(made, adapter(1), MODEL, {})
    assert everything(made) != before
    assert [path.name for path in made.parent.iterdir()] == [made.name], "nothing is left beside it"


def test_what_somebody_put_into_its_folder_is_not_deleted_with_it(made: Path) -> None:
    (made / "notes.txt").write_text("mine")
    before = everything(made)
    with pytest.raises(UsageError, match=r"notes\.txt is no part of an adapter"):
        files.save(made, adapter(1), MODEL, {})
    assert everything(made) == before


def test_what_is_no_adapter_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "one.jpg").write_bytes(b"mine")
    (tmp_path / "file").write_text("mine")
    for name in ("photos", "file"):
        with pytest.raises(UsageError, match="exists and is not an adapter"):
            files.save(tmp_path / name, adapter(), MODEL, {})
    assert (tmp_path / "photos" / "one.jpg").read_bytes() == b"mine" and (tmp_path / "file").read_text() == "mine"
    with pytest.raises(UsageError, match="there is no folder"):
        files.save(tmp_path / "no" / "where", adapter(), MODEL, {})


@pytest.mark.parametrize("step", ["safetensors.numpy.save", "clipkit.methods.adapters.files.replace"])
def test_a_failure_half_way_leaves_the_old(made: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    before = everything(made)

    def full(*_: object) -> None:
        raise OSError(28, "no space left")

    monkeypatch.setattr(step, full)
    with pytest.raises(OSError, match="no space left"):
        files.save(made, adapter(1), MODEL, {})
    assert everything(made) == before and [path.name for path in made.parent.iterdir()] == [made.name]


def test_what_a_kill_left_is_cleared_away(made: Path) -> None:
    before = everything(made)
    left = files.part_of(made)
    left.mkdir()
    (left / "adapter.json").write_text("{")
    assert everything(made) == before and files.load(made)
    files.save(made, adapter(1), MODEL, {})
    assert not left.exists() and everything(made) != before


def test_numbers_that_json_has_not_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        files.save(tmp_path / "a", adapter(), MODEL, {"accuracy": float("nan")})
    assert list(tmp_path.iterdir()) == []
