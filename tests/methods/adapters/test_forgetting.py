"""What an adapter costs on other classes: by hand, at the ends of the curve, and through a changed model."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import pytest

from clipkit.methods.adapters import forgetting
from clipkit.methods.adapters.base import Adapter
from clipkit.methods.adapters.data import Features, Samples, Task, unit
from clipkit.methods.adapters.experiment import Sets, run
from clipkit.methods.adapters.gda import Gda
from clipkit.methods.adapters.measure import answers
from clipkit.methods.adapters.prototypes import Prototypes
from clipkit.methods.adapters.tuning import accuracy
from tests.methods.adapters.synthetic import World


def worlds(seed: int = 0) -> tuple[Samples, Samples, Samples]:
    """Support and validation of 6 classes, and images of 4 others of the same world."""
    world = World(seed, classes=10)
    support, validation, other = world.samples(8), world.samples(5, prefix="v"), world.samples(6, prefix="o")
    first, rest = range(6), range(6, 10)
    return forgetting.only(support, first), forgetting.only(validation, first), forgetting.only(other, rest)


def test_only_some_classes() -> None:
    support, _, other = worlds()
    assert support.task.classes == tuple(f"class {n}" for n in range(6)) and support.counts.tolist() == [8] * 6
    assert other.task.classes[0] == "class 6" and other.task.prompts[0] == ("a class 6",)
    turned = forgetting.only(support, [4, 1])
    assert turned.task.classes == ("class 4", "class 1")
    assert set(turned.names) == {
        name for name, label in zip(support.names, support.labels, strict=True) if label in (1, 4)
    }
    assert (turned.task.zero_shot(turned.plain) == support.take(
        np.flatnonzero(np.isin(support.labels, [1, 4]))
    ).task.zero_shot(turned.plain)[:, [4, 1]]).all()  # fmt: skip


def beside(own: np.ndarray, before: np.ndarray) -> np.ndarray:
    """Which class, as the adapter says; whether it is one of them, as the model itself says."""
    return np.log(np.exp(own) / np.exp(own).sum(1, keepdims=True) * np.exp(before).sum(1, keepdims=True))


def moved(adapter: Adapter, samples: Samples) -> np.ndarray:
    """The adapter's logits, each row with the mass that the model itself gives these classes."""
    own, before = adapter.logits(samples.plain), adapter.task_.zero_shot(samples.plain)
    return own - np.log(np.exp(own).sum(axis=1))[:, None] + np.log(np.exp(before).sum(axis=1))[:, None]


def test_the_figures_by_hand() -> None:
    support, validation, other = worlds()
    result = run([Prototypes()], Sets(support, validation, None, other))
    adapter, said, curve = result.adapter, result.report["forgetting"], result.report["blend"]
    theirs = other.task.zero_shot(other.plain)
    labels = other.labels + 6
    before = accuracy(np.hstack([support.task.zero_shot(other.plain), theirs]), labels)
    plain = support.task.zero_shot(other.plain)
    after = accuracy(np.hstack([beside(adapter.logits(other.plain), plain), theirs]), labels)
    alone = round(accuracy(theirs, other.labels), 6)
    assert said == {
        "on": "other images",
        "classes": 4,
        "images": 24,
        "alone": {"zero_shot": alone, "adapted": alone, "gain": 0.0},
        "together": {"zero_shot": round(before, 6), "adapted": round(after, 6), "gain": round(after - before, 6)},
    }
    assert [point["alpha"] for point in curve["curve"]] == [0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1]
    for point in curve["curve"]:
        adapter.blend = point["alpha"]
        own = adapter.logits(validation.plain)
        assert point["target"] == round(accuracy(own, validation.labels), 6)
        both = np.hstack([beside(adapter.logits(other.plain), plain), theirs])
        assert point["other"] == round(accuracy(both, labels), 6)
    ends = curve["curve"][0], curve["curve"][-1]
    assert [end["other"] for end in ends] == [said["together"]["zero_shot"], said["together"]["adapted"]]


def test_the_suggestion_by_hand() -> None:
    alphas = [0.0, 0.5, 1.0]
    assert forgetting.suggest(alphas, [0.5, 0.8, 0.9], [0.8, 0.7, 0.2]) == 0.5  # 0.615, 0.747, 0.327
    assert forgetting.suggest(alphas, [0.5, 0.8, 0.8], [0.5, 0.6, 0.6]) == 0.5, "of equals the smallest"
    assert forgetting.suggest(alphas, [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]) == 0.0


def test_without_others_half_of_the_classes_stand_in() -> None:
    support, validation, _ = worlds()
    said = run([Gda()], Sets(support, validation)).report["forgetting"]
    assert said["on"] == "half of the classes, left out of a fit of its own"
    assert said["classes"] == 3 and said["images"] == 3 * (8 + 5)
    order = np.random.default_rng(0).permutation(len(support))
    again = run([Gda()], Sets(support.take(order), validation)).report["forgetting"]
    assert again == said, "which half is a hash of their names"


def test_the_half_that_is_left_out_was_not_seen() -> None:
    support, _, _ = worlds()
    beside = forgetting.beside(Prototypes().fit(support), support, None, None)
    assert isinstance(beside, forgetting.Beside)
    assert not set(beside.adapter.task_.classes) & set(beside.others.task.classes)
    assert set(beside.adapter.task_.classes) | set(beside.others.task.classes) == set(support.task.classes)
    moved = support.features
    assert moved is not None
    left = np.isin([support.task.classes[label] for label in support.labels], beside.others.task.classes)
    joint = np.where(left[:, None], -moved.joint, moved.joint)
    other = forgetting.beside(Prototypes().fit(support), replace(support, features=Features(joint)), None, None)
    assert isinstance(other, forgetting.Beside)
    rows = support.plain.take(slice(0, 5))
    assert (beside.adapter.logits(rows) == other.adapter.logits(rows)).all()


def test_why_there_is_nothing_to_measure_on() -> None:
    support, _, other = worlds()
    few = forgetting.only(support, [0, 1, 2])
    report = run([Prototypes()], Sets(few)).report
    assert report["forgetting"] == {"on": None, "reason": "fewer than 4 classes: give images of other classes"}
    assert report["blend"]["suggested"] is None and report["blend"]["reason"].startswith("fewer than 4 classes")
    assert report["blend"]["curve"][0]["target"] is not None and report["blend"]["curve"][0]["other"] is None
    own = replace(other, task=replace(other.task, classes=support.task.classes[:4]))
    said = run([Prototypes()], Sets(support, other=own)).report["forgetting"]
    assert said["reason"] == "all the other images are of the adapter's classes"


def test_others_that_are_the_adapters_own_are_left_out() -> None:
    support, validation, other = worlds()
    mixed = replace(other, task=replace(other.task, classes=("class 0", *other.task.classes[1:])))
    said = run([Prototypes()], Sets(support, validation, None, mixed)).report["forgetting"]
    assert said["classes"] == 3 and said["images"] == 18


TURN = np.linalg.qr(np.random.default_rng(5).standard_normal((64, 64)))[0].astype(np.float32)


class Turned:
    """A model whose features are another's, turned by so much."""

    def __init__(self, amount: float) -> None:
        self.amount = amount

    def features(self, rows: np.ndarray) -> np.ndarray:
        return unit((1 - self.amount) * rows + self.amount * rows @ TURN)


@dataclass(kw_only=True)
class Turning(Adapter):
    """Changes the model by a fixed turn of the image features; its texts are then moved a little, too."""

    name: ClassVar[str] = "turning"
    needs: ClassVar[Any] = "model"

    def _fit(self, support: Samples, validation: Samples | None) -> None:
        self.facts_ = {"validation_accuracy": 0.5}

    def _logits(self, features: Features) -> np.ndarray:
        return self.task_.zero_shot(features)

    def attach(self, encoder: Any) -> Any:
        return Turned(0.6 * self.blend)


def encode(model: Any, samples: Samples) -> Samples:
    text = unit(samples.task.text + 0.1 * model.amount)
    task = replace(samples.task, text=text)
    if samples.features is None:
        assert len(samples) == 0
        return replace(samples, task=task)
    return replace(samples, task=task, features=Features(model.features(samples.features.joint)))


def test_a_changed_model_is_measured_by_its_own_features() -> None:
    support, validation, other = worlds()
    base: Any = Turned(0.0)
    known = [
        replace(samples, task=replace(samples.task, encoder=base), features=Features(samples.plain.joint))
        for samples in (support, validation, other)
    ]
    report = run([Turning()], Sets(known[0], known[1], known[1], known[2]), encode=encode).report

    def by_hand(amount: float) -> tuple[float, float, float]:
        model = Turned(amount)
        target, rest = encode(model, known[1]), encode(model, known[2])
        theirs = rest.task.zero_shot(rest.plain)
        own = target.task.zero_shot(rest.plain)
        return (
            round(accuracy(target.task.zero_shot(target.plain), validation.labels), 6),
            round(accuracy(theirs, other.labels), 6),
            round(accuracy(np.hstack([own, theirs]), other.labels + 6), 6),
        )

    curve = report["blend"]["curve"]
    assert [point["alpha"] for point in curve] == [0, 0.25, 0.5, 0.75, 1]
    for point in curve[1:]:
        target, _, together = by_hand(0.6 * point["alpha"])
        assert (point["target"], point["other"]) == (target, together)
    assert curve[0]["target"] == report["accuracy"]["validation"]["zero_shot"]
    assert report["forgetting"]["alone"]["adapted"] == by_hand(0.6)[1]
    assert report["forgetting"]["alone"]["zero_shot"] == by_hand(0.0)[1], "before is the model as it was"
    assert report["accuracy"]["test"]["adapted"] == by_hand(0.6)[0]


def test_a_method_that_trains_the_model_is_not_trained_again_for_this() -> None:
    support, _, _ = worlds()
    base: Any = Turned(0.0)
    known = replace(support, task=replace(support.task, encoder=base))
    said = run([Turning()], Sets(known), encode=encode).report["forgetting"]
    assert said["on"] is None and "another training" in said["reason"]


def test_an_adapter_blended_before_is_measured_as_a_whole() -> None:
    support, validation, _ = worlds()
    adapter = Prototypes().fit(support)
    whole = adapter.logits(validation.plain)
    adapter.blend = 0.0
    assert (answers(adapter, validation) == whole).all()
    assert adapter.blend == 0.0


def test_features_are_asked_for_where_there_are_none() -> None:
    task = Task(("a", "b"), np.eye(2, 64, dtype=np.float32), 10.0)
    with pytest.raises(AssertionError, match="need a model"):
        answers(Turning().fit(Samples(task, np.array([0, 1]))), Samples(task, np.array([0])))
