"""Class means: the formula, and updates that equal one fit on everything."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clipkit.errors import UsageError
from clipkit.methods.adapters import files
from clipkit.methods.adapters.data import Features, Samples, Task, unit
from clipkit.methods.adapters.prototypes import Prototypes
from clipkit.methods.adapters.tuning import accuracy
from clipkit.models.base import Identity, Preprocess

NAMES = ("cat", "dog", "owl", "fox")
TEXT = unit(np.random.default_rng(9).standard_normal((4, 6)))


def task_of(known: int, **changes: Any) -> Task:
    return replace(Task(NAMES[:known], TEXT[:known], 20.0, space="backbone"), **changes)


def samples_of(task: Task, labels: list[int], seed: int = 0, views: int = 1) -> Samples:
    random = np.random.default_rng(seed)
    count = len(labels) * views
    features = Features(unit(random.standard_normal((count, 6))), unit(random.random((count, 9))))
    return Samples(task, np.array(labels, np.int64), features, views=views)


def joined(task: Task, *parts: Samples) -> Samples:
    joint, backbone = (np.concatenate([getattr(p.plain, space) for p in parts]) for space in ("joint", "backbone"))
    return Samples(task, np.concatenate([p.labels for p in parts]), Features(joint, backbone))


def test_logits_worked_by_hand() -> None:
    """Means (1, 0), (0, 1): directions from their middle are (1, -1) and (-1, 1) over sqrt 2. K = 2: alpha * 2 / 14."""
    text = np.eye(2, dtype=np.float32)
    rows = np.array([[1, 0], [1, 0], [0, 1], [0, 1]], np.float32)
    support = Samples(Task(("a", "b"), text, 10.0), np.array([0, 0, 1, 1]), Features(rows))
    got = Prototypes(alpha=14.0).fit(support).logits(Features(np.array([[0.6, 0.8]], np.float32)))
    away = (0.6 - 0.8) / 2**0.5
    np.testing.assert_allclose(got, [[6 + 2 * away, 8 - 2 * away]], atol=1e-6)


def test_the_formula_row_by_row() -> None:
    task = task_of(3)
    support, asked = samples_of(task, [0, 1, 1, 2, 0, 2, 2]), samples_of(task, [0] * 5, seed=1).plain
    x = support.plain.of("backbone").astype(float)
    means = [np.mean([row for row, own in zip(x, support.labels, strict=True) if own == c], axis=0) for c in range(3)]
    middle = sum(means) / 3
    shots = 7 / 3
    wanted = np.empty((5, 3))
    for i in range(5):
        f, joint = asked.of("backbone")[i].astype(float), asked.joint[i].astype(float)
        for c in range(3):
            away = means[c] - middle
            near = (f - middle) @ away / np.sqrt(away @ away)
            wanted[i, c] = 20.0 * joint @ TEXT[c].astype(float) + 50.0 * shots / (shots + 12) * near
    np.testing.assert_allclose(Prototypes(alpha=50.0).fit(support).logits(asked), wanted, atol=1e-10)


def test_views_count_as_their_mean() -> None:
    task = task_of(2)
    seen = samples_of(task, [0, 1, 1], views=4)
    single = Samples(task, seen.labels, Features(seen.plain.joint, seen.mean_view()))
    got, wanted = Prototypes().fit(seen), Prototypes().fit(single)
    np.testing.assert_array_equal(got.logits(seen.plain), wanted.logits(seen.plain))


@settings(max_examples=30, deadline=None)
@given(
    first=st.lists(st.integers(0, 1), max_size=12),
    rest=st.lists(st.lists(st.integers(0, 3), max_size=12), min_size=1, max_size=3),
)
def test_an_update_equals_one_fit_on_everything(first: list[int], rest: list[list[int]]) -> None:
    old, grown = task_of(2), task_of(4)
    parts = [samples_of(old, [0, 1, *first])]
    parts += [samples_of(grown, [2, 3, *more], seed=1 + number) for number, more in enumerate(rest)]
    updated = Prototypes().fit(parts[0])
    for part in parts[1:]:
        assert updated.update(part) is updated
    whole = Prototypes().fit(joined(grown, *parts))
    assert updated.task_.classes == NAMES
    np.testing.assert_array_equal(updated.state_["counts"], whole.state_["counts"])
    np.testing.assert_allclose(updated.state_["sums"], whole.state_["sums"], rtol=0, atol=1e-13)
    asked = samples_of(grown, [0] * 7, seed=50).plain
    np.testing.assert_allclose(updated.logits(asked), whole.logits(asked), rtol=0, atol=1e-10)


def test_an_update_after_saving_and_loading(tmp_path: Path) -> None:
    parts = samples_of(task_of(2), [0, 1, 1]), samples_of(task_of(3), [2, 2, 0], seed=1)
    identity = Identity("a-model", "ab" * 32, Preprocess((8, 8), (0.5,) * 3, (0.5,) * 3), "gelu", 6)
    files.save(tmp_path / "a", Prototypes(alpha=7.0).fit(parts[0]), identity, {})
    loaded = files.load(tmp_path / "a").adapter
    assert isinstance(loaded, Prototypes)
    whole = Prototypes(alpha=7.0).fit(joined(parts[1].task, *parts))
    np.testing.assert_allclose(loaded.update(parts[1]).logits(parts[1].plain), whole.logits(parts[1].plain), atol=1e-10)


def test_what_was_chosen_stays_in_an_update() -> None:
    task = task_of(2)
    adapter = Prototypes().fit(samples_of(task, [0, 1] * 4), samples_of(task, [0, 1] * 3, seed=1))
    chosen = adapter.chosen_["alpha"]
    adapter.update(samples_of(task_of(3), [2, 2], seed=2))
    assert adapter.at("alpha") == chosen


def test_text_features_from_another_device_are_the_same_texts() -> None:
    """Rounding is not another prompt; the adapter keeps the rows it was made with."""
    adapter = Prototypes().fit(samples_of(task_of(2), [0, 1]))
    noisy = TEXT + np.float32(1e-4)
    adapter.update(samples_of(task_of(3, text=noisy[:3]), [2], seed=1))
    np.testing.assert_array_equal(adapter.task_.text, np.concatenate([TEXT[:2], noisy[2:3]]))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"classes": ("dog", "cat", "owl")}, "another order"),
        ({"classes": ("cat", "yak", "owl")}, "'dog' is missing"),
        ({"classes": ("cat", "dog", "cat")}, "named twice"),
        ({"scale": 21.0}, "another model"),
        ({"bias": -10.0}, "another model"),
        ({"space": "joint"}, "another model"),
        ({"text": TEXT[:3, :5]}, "another model"),
        ({"text": TEXT[[0, 3, 2]]}, "the texts of 'dog'"),
        ({"prompts": (("a cat",), ("the dog",), ("an owl",))}, "the texts"),
    ],
)
def test_another_task_is_refused_and_nothing_changes(changes: dict[str, Any], said: str) -> None:
    support = samples_of(task_of(2, prompts=(("a cat",), ("a dog",))), [0, 1, 1])
    adapter = Prototypes().fit(support)
    before = adapter.logits(support.plain)
    prompts = (("a cat",), ("a dog",), ("an owl",))
    with pytest.raises(UsageError, match=said):
        adapter.update(samples_of(task_of(3, **{"prompts": prompts, **changes}), [2, 0]))
    np.testing.assert_array_equal(adapter.logits(support.plain), before)


def test_a_new_class_needs_a_sample() -> None:
    adapter = Prototypes().fit(samples_of(task_of(2), [0, 1]))
    with pytest.raises(UsageError, match="no image of the new class 'fox'"):
        adapter.update(samples_of(task_of(4), [2, 0]))


def test_classes_that_look_alike_leave_the_zero_shot_logits() -> None:
    """Equal means, or a single class: no direction tells them apart, and nothing becomes NaN."""
    row = unit(np.ones((1, 6)))
    support = Samples(replace(task_of(2), space="joint"), np.array([0, 1]), Features(np.repeat(row, 2, axis=0)))
    asked = Features(TEXT)
    np.testing.assert_allclose(Prototypes().fit(support).logits(asked), support.task.zero_shot(asked), atol=1e-12)
    alone = Samples(replace(task_of(1), space="joint"), np.array([0]), Features(row))
    np.testing.assert_allclose(Prototypes().fit(alone).logits(asked), alone.task.zero_shot(asked), atol=1e-12)


def test_validation_turns_off_means_that_mislead() -> None:
    """Zero-shot is right everywhere, and the labels of the support are turned round."""
    rows = np.repeat(np.eye(3, dtype=np.float32), 4, axis=0)
    task = Task(("a", "b", "c"), np.eye(3, dtype=np.float32), 20.0)
    truth = np.repeat(np.arange(3), 4)
    validation = Samples(task, truth, Features(rows))
    adapter = Prototypes().fit(Samples(task, (truth + 1) % 3, Features(rows)), validation)
    assert adapter.chosen_ == {"alpha": 0.0}
    assert accuracy(adapter.logits(validation.plain), truth) == 1.0
