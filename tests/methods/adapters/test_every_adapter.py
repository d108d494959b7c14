"""What holds for every few-shot method that the registry names; formulas are in a method's own test."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from clipkit.errors import UsageError
from clipkit.methods import ADAPTERS
from clipkit.methods.adapters import files, selection
from clipkit.methods.adapters.base import Adapter
from clipkit.methods.adapters.data import Features, Samples, Space, Task, unit
from clipkit.methods.adapters.tuning import accuracy
from tests.methods.adapters.synthetic import MODEL, World

METHODS: dict[str, type[Adapter]] = {entry.name: ADAPTERS.get(entry.name) for entry in ADAPTERS}
ON_FEATURES = [name for name, method in METHODS.items() if method.needs == "features"]
SPACES: tuple[Space, ...] = ("joint", "backbone")

every_method = pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
every_name = pytest.mark.parametrize("name", ON_FEATURES)  # those that train through a model have tests of their own
every_space = pytest.mark.parametrize("space", SPACES)


@functools.cache
def small(space: Space = "joint", views: int = 1) -> tuple[Samples, Samples, Samples]:
    """Support of 6 a class, validation, test, of 5 classes."""
    world = World(seed=3, classes=5, space=space)
    return world.samples(6, views), world.samples(3, prefix="v"), world.samples(8, prefix="t")


@functools.cache
def fitted(name: str, space: Space = "joint", views: int = 1) -> Adapter:
    """Fitted with validation data; not to be changed."""
    support, validation, _ = small(space, views)
    return METHODS[name]().fit(support, validation)


def again(name: str, space: Space = "joint", blend: float = 1.0) -> Adapter:
    """The same in an object of its own, to be changed."""
    own = METHODS[name]()
    vars(own).update(vars(fitted(name, space)))
    own.blend = blend
    return own


def close(one: np.ndarray, other: np.ndarray) -> bool:
    """Equal up to the order of sums."""
    return bool(np.abs(one - other).max() <= 1e-9 * max(1.0, np.abs(one).max()))


@every_method
def test_the_constructor_only_stores(method: type[Adapter]) -> None:
    adapter = method()
    assert not [name for name in vars(adapter) if name.endswith("_")]
    numbers = {name: 3 for name, value in adapter.params.items() if value is None or type(value) in (int, float)}
    assert method(**numbers).params == adapter.params | numbers
    text = {name: str(value).lower() for name, value in adapter.params.items() if value is not None}
    assert method.from_settings(text) == adapter


@every_method
def test_it_says_what_it_is(method: type[Adapter]) -> None:
    assert METHODS[method.name] is method
    assert method.cost and method.citation[-4:].isdigit()
    said = method.describe()
    assert json.loads(json.dumps(said, allow_nan=False)) == said
    assert all(param["said"] and not param["said"].endswith(".") for param in said["params"].values())


@every_name
def test_what_it_chooses_has_a_value_without_validation(name: str) -> None:
    adapter = METHODS[name]()
    open_ = [key for key, value in adapter.params.items() if value is None]
    assert open_ == [key for key, param in METHODS[name].describe()["params"].items() if "untuned" in param]
    adapter.fit(small()[0])
    assert adapter.chosen_ == {} and all(adapter.at(key) is not None for key in open_)


@every_method
def test_a_setting_it_does_not_have_is_refused(method: type[Adapter]) -> None:
    with pytest.raises(UsageError, match=f"{method.name.replace('+', '.')} has no parameter 'colour'"):
        method.from_settings({"colour": "1"})


@every_name
@every_space
def test_blend_0_is_zero_shot_exactly(name: str, space: Space) -> None:
    plain = small(space)[2].plain
    assert (again(name, space, 0.0).logits(plain) == small(space)[2].task.zero_shot(plain)).all()


@every_name
@every_space
@pytest.mark.parametrize("blend", [1.0, 0.3, 0.0])
def test_a_head_says_what_the_adapter_says(name: str, space: Space, blend: float) -> None:
    adapter, plain = again(name, space, blend), small(space)[2].plain
    head = adapter.fold()
    if head is not None:
        assert np.abs(head.logits(plain) - adapter.logits(plain)).max() < 1e-5


@every_name
@every_space
def test_a_row_alone_is_the_row_of_a_batch(name: str, space: Space) -> None:
    adapter, plain = fitted(name, space), small(space)[2].plain
    batch = adapter.logits(plain)
    assert batch.dtype == np.float64 and batch.shape == (len(plain), 5)
    alone = np.vstack([adapter.logits(plain.take(slice(row, row + 1))) for row in range(len(plain))])
    assert close(batch, alone)
    for row in range(0, len(plain), 7):  # in memory of its own, and after others
        again_ = adapter.logits(plain.take(np.array([row])))[0]
        assert (again_ == alone[row]).all()


@every_name
@every_space
def test_saved_and_loaded_it_says_the_same(name: str, space: Space, tmp_path: Path) -> None:
    support, validation, test = small(space)
    odd = ("a, b", "łąka 草原", 'quo"ted', "back\\slash", "line\nbreak")
    task = replace(support.task, classes=odd)
    adapter = METHODS[name]().fit(replace(support, task=task), replace(validation, task=task))
    adapter.blend = 0.75
    files.save(tmp_path / "made", adapter, MODEL, {"report": adapter.facts_})
    other = files.load(tmp_path / "made").adapter
    assert type(other) is type(adapter) and other.params == adapter.params and other.chosen_ == adapter.chosen_
    assert other.task_.classes == odd and other.task_.prompts == task.prompts
    assert (other.logits(test.plain) == adapter.logits(test.plain)).all()
    assert sorted(path.suffix for path in (tmp_path / "made").iterdir()) == [".json", ".safetensors"]


@pytest.mark.parametrize("name", [name for name in ON_FEATURES if METHODS[name].closed_form])
@every_space
@pytest.mark.parametrize("views", [1, 3])
def test_closed_forms_do_not_depend_on_the_order(name: str, space: Space, views: int) -> None:
    support, validation, test = small(space, views)
    order = np.random.default_rng(1).permutation(len(support))
    other = METHODS[name]().fit(support.take(order), validation)
    assert close(fitted(name, space, views).logits(test.plain), other.logits(test.plain))


@every_name
@every_space
def test_a_fit_leaves_nothing_behind(name: str, space: Space) -> None:
    support, validation, test = small(space)
    before = [array.copy() for array in (support.features.joint, support.labels, support.task.text)]  # type: ignore[union-attr]
    adapter = METHODS[name]().fit(*elsewhere(space)).fit(support, validation)
    assert adapter.params == METHODS[name]().params
    assert adapter.chosen_ == fitted(name, space).chosen_ and adapter.state_.keys() == fitted(name, space).state_.keys()
    assert (adapter.logits(test.plain) == fitted(name, space).logits(test.plain)).all()
    after = (support.features.joint, support.labels, support.task.text)  # type: ignore[union-attr]
    assert all((one == other).all() for one, other in zip(before, after, strict=True))


def elsewhere(space: Space) -> tuple[Samples, Samples]:
    """Another task, with more classes."""
    world = World(seed=9, classes=7, space=space)
    return world.samples(4), world.samples(2)


@every_name
def test_what_was_chosen_is_what_a_refit_takes(name: str) -> None:
    support, _, test = small()
    before = fitted(name)
    assert json.loads(json.dumps(before.chosen_, allow_nan=False)) == before.chosen_
    assert json.loads(json.dumps(before.facts_, allow_nan=False)) == before.facts_
    open_ = {key for key, value in METHODS[name]().params.items() if value is None}
    assert before.chosen_.keys() <= open_
    refit = [METHODS[name]().fit(support, chosen=before.chosen_) for _ in range(2)]
    assert refit[0].chosen_ == before.chosen_
    assert (refit[0].logits(test.plain) == refit[1].logits(test.plain)).all()
    if METHODS[name].closed_form:  # the others' choice of an epoch is not the same as a run of so many
        given = METHODS[name](**before.chosen_).fit(support)
        assert close(refit[0].logits(test.plain), given.logits(test.plain))


@every_name
@every_space
@pytest.mark.parametrize("shots", [1, 2, 4, 16])
def test_at_defaults_it_is_no_worse_than_the_model(name: str, space: Space, shots: int) -> None:
    pool, test = crowd(space)
    support, zero = pool.take(first(pool, shots)), accuracy(pool.task.zero_shot(test.plain), test.labels)
    assert 0.65 < zero < 0.8
    untuned = METHODS[name]().fit(support)
    assert accuracy(untuned.logits(test.plain), test.labels) >= zero - 0.005
    tuned, how = selection.fit(METHODS[name](), support)
    assert how.on == ("untuned" if shots < 4 else "held-out")
    assert accuracy(tuned.logits(test.plain), test.labels) >= zero - 0.005


@every_space
@pytest.mark.parametrize("shots", [4, 8, 16])
def test_gda_beats_tip_beats_the_model(space: Space, shots: int) -> None:
    pool, test = crowd(space)
    support, zero = pool.take(first(pool, shots)), accuracy(pool.task.zero_shot(test.plain), test.labels)
    gda, tip = (
        accuracy(selection.fit(METHODS[name](), support)[0].logits(test.plain), test.labels) for name in ("gda", "tip")
    )
    assert gda >= tip >= zero


@functools.cache
def crowd(space: Space) -> tuple[Samples, Samples]:
    """20 classes: 16 samples each, and 1000 to measure on."""
    world = World(space=space)
    return world.samples(16), world.samples(50, prefix="t")


def first(samples: Samples, shots: int) -> np.ndarray:
    """The first samples of each class."""
    rows = [np.flatnonzero(samples.labels == number)[:shots] for number in range(len(samples.task.classes))]
    return np.sort(np.concatenate(rows))


@every_name
@every_space
def test_views_are_used_or_ignored_but_fit(name: str, space: Space) -> None:
    support, validation, test = small(space, views=3)
    for adapter in (fitted(name, space, 3), METHODS[name]().fit(support)):
        assert np.isfinite(adapter.logits(test.plain)).all()
    plain = replace(support, features=support.plain, views=1)
    if not METHODS[name].views:
        without = METHODS[name]().fit(plain, validation)
        assert close(without.logits(test.plain), fitted(name, space, 3).logits(test.plain))


@every_name
@pytest.mark.parametrize("make", ["one class empty", "one sample in all"])
def test_a_class_without_samples_is_named_or_handled(name: str, make: str) -> None:
    support, _, test = small()
    kept = np.array([0]) if make == "one sample in all" else np.flatnonzero(support.labels != 3)
    some = support.take(kept)
    if METHODS[name].all_classes:
        with pytest.raises(
            UsageError, match=f"'class [0-3]'.*: {METHODS[name].name.replace('+', '.')} needs one of each"
        ):
            METHODS[name]().fit(some)
    else:
        assert np.isfinite(METHODS[name]().fit(some).logits(test.plain)).all()


@every_name
def test_nothing_to_learn_from_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="no labelled image"):
        METHODS[name]().fit(small()[0].take(np.empty(0, np.int64)))


def same_picture(samples: Samples) -> Samples:
    """All images equal: no spread within or between the classes."""
    assert samples.features is not None
    joint, backbone = (
        np.repeat(rows[:1], len(samples), 0) for rows in (samples.features.joint, samples.features.of("backbone"))
    )
    return replace(samples, features=Features(joint, backbone))


def black_picture(samples: Samples) -> Samples:
    """One image whose features are nothing."""
    assert samples.features is not None
    joint, backbone = samples.features.joint.copy(), samples.features.of("backbone").copy()
    joint[0], backbone[0] = 0, 0
    return replace(samples, features=Features(joint, backbone))


def one_class(samples: Samples) -> Samples:
    task = samples.task
    alone = Task(task.classes[:1], task.text[:1], task.scale, space=task.space)
    return replace(samples.take(np.flatnonzero(samples.labels == 0)), task=alone)


def opposite(samples: Samples) -> Samples:
    """Two samples of two classes whose mean is nothing."""
    task = replace(samples.task, classes=("a", "b"), text=samples.task.text[:2], prompts=())
    joint, backbone = np.zeros((4, 64)), np.zeros((4, 96))
    joint[0, 0], joint[1, 0], joint[2, 1], joint[3, 2] = 1, -1, 1, 1
    backbone[:, :64] = joint
    return Samples(task, np.array([0, 0, 1, 1]), Features(unit(joint), unit(backbone)), names=list("abcd"))


@every_name
@every_space
@pytest.mark.parametrize("make", [same_picture, black_picture, one_class, opposite])
def test_degenerate_samples_give_finite_logits(name: str, space: Space, make: Callable[[Samples], Samples]) -> None:
    support = make(small(space)[0])
    adapter = METHODS[name]().fit(support)
    out = adapter.logits(small(space)[2].plain)
    assert out.shape[1] == len(support.task.classes) and np.isfinite(out).all()
    assert np.isfinite(adapter.logits(Features(np.zeros((1, 64), np.float32), np.zeros((1, 96), np.float32)))).all()


@every_name
@pytest.mark.parametrize(("counts", "on"), [((1, 2, 3, 6, 6), "untuned"), ((1, 3, 6, 6, 6), "held-out")])
def test_uneven_classes_do(name: str, counts: tuple[int, ...], on: str) -> None:
    support, _, test = small()
    ranks = selection.ranks([b"%03d" % row for row in range(len(support))], support)
    adapter, how = selection.fit(
        METHODS[name](), support.take(np.flatnonzero(ranks < np.array(counts)[support.labels]))
    )
    assert how.on == on
    before = accuracy(test.task.zero_shot(test.plain), test.labels)
    assert accuracy(adapter.logits(test.plain), test.labels) > before - 0.1


@every_name
def test_validation_may_lack_a_class(name: str) -> None:
    support, validation, test = small()
    adapter = METHODS[name]().fit(support, validation.take(np.flatnonzero(validation.labels != 2)))
    assert np.isfinite(adapter.logits(test.plain)).all()


@pytest.fixture(scope="module")
def clothes(shared_data: Path) -> tuple[Samples, Samples]:
    """Photos of ten kinds of clothes as `lite` sees them: 8 of each to learn from, 15 to measure on."""
    from PIL import Image

    from clipkit.models.load import load

    folder, encoder = shared_data / "classification" / "clothing", load("lite")
    records = [json.loads(line) for line in (folder / "manifest.jsonl").read_text().splitlines()]
    texts = {record["label"]: record["text"] for record in records}
    classes = sorted(texts)
    prompts = [encoder.default_templates[0].replace("{}", texts[name]) for name in classes]
    task = Task(tuple(classes), encoder.encode_texts(prompts), encoder.logit_scale, encoder.logit_bias, "backbone")

    def part(split: str, each: int) -> Samples:
        chosen = [[r for r in records if (r["split"], r["label"]) == (split, name)][:each] for name in classes]
        mine = [record for some in chosen for record in some]
        pixels = [encoder.preprocess(Image.open(folder / record["image"]).convert("RGB")) for record in mine]
        rows = [encoder.encode_images(one[None], backbone=True) for one in pixels]
        features = Features(np.vstack([joint for joint, _ in rows]), unit(np.vstack([behind for _, behind in rows])))
        labels = np.array([classes.index(record["label"]) for record in mine])
        return Samples(task, labels, features, names=[record["image"] for record in mine])

    return part("train", 8), part("test", 15)


@pytest.mark.slow
@every_name
@pytest.mark.parametrize("shots", [1, 8])
def test_on_photos_it_is_better_than_the_model(name: str, shots: int, clothes: tuple[Samples, Samples]) -> None:
    pool, test = clothes
    zero = accuracy(pool.task.zero_shot(test.plain), test.labels)
    adapter, _ = selection.fit(METHODS[name](), pool.take(first(pool, shots)))
    assert accuracy(adapter.logits(test.plain), test.labels) >= zero + (0.1 if shots == 8 else 0.0)


@pytest.mark.slow
def test_on_photos_gda_beats_tip_beats_the_model(clothes: tuple[Samples, Samples]) -> None:
    pool, test = clothes
    gda, tip = (
        accuracy(selection.fit(METHODS[name](), pool)[0].logits(test.plain), test.labels) for name in ("gda", "tip")
    )
    assert gda >= tip >= accuracy(pool.task.zero_shot(test.plain), test.labels)
