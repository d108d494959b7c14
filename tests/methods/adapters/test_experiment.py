"""Shots, seeds, and a report that says what was measured on what."""

from __future__ import annotations

import json
import statistics
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clipkit.errors import UsageError
from clipkit.methods.adapters import auto, experiment, selection
from clipkit.methods.adapters.data import Features, Samples
from clipkit.methods.adapters.experiment import Sets, draw, run
from clipkit.methods.adapters.gda import Gda
from clipkit.methods.adapters.prototypes import Prototypes
from clipkit.methods.adapters.ridge import Ridge
from clipkit.methods.adapters.tip import Tip
from clipkit.methods.adapters.tuning import accuracy
from tests.methods.adapters.synthetic import World


@pytest.fixture(scope="module")
def sets() -> Sets:
    world = World(classes=8)
    return Sets(world.samples(12), None, world.samples(10, prefix="t"))


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 3))
def test_fewer_shots_are_among_more(few: int, more: int, seed: int) -> None:
    few, more = sorted((few, more))
    pool = World(classes=4).samples(8)
    pool = replace(pool, task=replace(pool.task, seed=seed))
    small, large = draw(pool, few), draw(pool, more)
    assert set(small.names) <= set(large.names)
    assert small.counts.tolist() == [min(few, 8)] * 4
    order = np.random.default_rng(seed).permutation(len(pool))
    assert set(draw(pool.take(order), few).names) == set(small.names)


def test_the_numbers_are_those_of_the_single_fits(sets: Sets) -> None:
    result = run([Prototypes()], sets, shots=8, seeds=[3, 4, 5])
    found, zero, held = [], [], []
    for seed in (3, 4, 5):
        pool = replace(sets.support, task=replace(sets.support.task, seed=seed))
        adapter, how = selection.fit(Prototypes(), draw(pool, 8))
        assert sets.test is not None
        found.append(accuracy(adapter.logits(sets.test.plain), sets.test.labels))
        zero.append(accuracy(pool.task.zero_shot(sets.test.plain), sets.test.labels))
        held.append(how.accuracy)
    test = result.report["accuracy"]["test"]
    assert test["adapted"] == pytest.approx(found[0], abs=1e-6) and test["zero_shot"] == pytest.approx(
        zero[0], abs=1e-6
    )
    assert test["gain"] == pytest.approx(found[0] - zero[0], abs=2e-6) and test["images"] == 80
    assert test["mean"] == pytest.approx(statistics.mean(found), abs=1e-6)
    assert test["std"] == pytest.approx(statistics.stdev(found), abs=1e-6)
    assert [each["accuracy"] for each in result.report["selection"]] == held
    assert result.report["accuracy"]["held-out"]["adapted"] == held[0]
    assert result.adapter.task_.seed == 3 and result.report["seeds"] == [3, 4, 5]
    assert result.report["samples"] == {"all": 64, "min": 8, "max": 8}


def test_one_seed_has_no_deviation(sets: Sets) -> None:
    test = run([Prototypes()], sets, shots=2).report["accuracy"]["test"]
    assert test["std"] is None and test["mean"] == test["adapted"]


@pytest.mark.parametrize("shots", [1, 2, 4, None])
def test_the_test_set_decides_nothing(sets: Sets, shots: int | None) -> None:
    assert sets.test is not None
    wrong = replace(sets.test, labels=(sets.test.labels + 1) % 8)
    one, other = (run(auto.candidates()[:3], replace(sets, test=test), shots=shots) for test in (sets.test, wrong))
    assert one.report["accuracy"].pop("test") != other.report["accuracy"].pop("test")
    assert one.report == other.report
    assert (one.adapter.logits(sets.test.plain) == other.adapter.logits(sets.test.plain)).all()


def test_with_validation_nothing_is_held_out(sets: Sets) -> None:
    result = run([Prototypes()], replace(sets, validation=World(classes=8).samples(3, prefix="v")), shots=4)
    assert result.selection.on == "validation" and result.selection.samples == 24
    assert list(result.report["accuracy"]) == ["validation", "test"]
    assert result.report["blend"]["target_on"] == "validation"


def test_untuned_is_said_and_measured_by_leaving_out(sets: Sets) -> None:
    report = run([Prototypes()], sets, shots=3).report
    assert report["selection"][0] | {"seed": 0} == {
        "seed": 0, "method": "prototypes", "on": "untuned", "samples": 0, "accuracy": None, "chosen": {},
    }  # fmt: skip
    assert any(notice.startswith("untuned: ") for notice in report["notices"])
    assert report["accuracy"]["cross-validated"]["images"] == 24
    alone = run([Prototypes()], replace(sets, test=None), shots=1).report
    assert alone["accuracy"] == {} and alone["blend"]["suggested"] is None
    assert alone["blend"]["reason"] == "no image of its classes was left to measure on: give validation images"


def test_the_report_is_json_and_the_same_every_time(sets: Sets) -> None:
    candidates = [Gda(), Tip(), Ridge()]
    one, other = (json.dumps(run(candidates, sets, shots=4, seeds=[0, 1]).report, allow_nan=False) for _ in range(2))
    assert one == other
    assert candidates == [Gda(), Tip(), Ridge()] and "task_" not in vars(candidates[0]), "copies are fitted"


def test_few_samples_are_used_and_named() -> None:
    pool = World(classes=3).samples(6)
    rank = selection.ranks([b"%03d" % row for row in range(len(pool))], pool)
    uneven = pool.take(np.flatnonzero(rank < np.array([6, 5, 2])[pool.labels]))
    report = run([Prototypes()], Sets(uneven), shots=6).report
    assert report["notices"] == ["fewer than 6 images of 'class 1' (5), 'class 2' (2): all of them are used"]
    assert report["samples"] == {"all": 13, "min": 2, "max": 6}


def joined(one: Samples, other: Samples) -> Samples:
    """One's samples and then the other's, without views."""
    parts = [samples.plain for samples in (one, other)]
    features = Features(np.vstack([p.joint for p in parts]), np.vstack([p.of("backbone") for p in parts]))
    names = [*one.names, *other.names]
    return replace(one, labels=np.concatenate([one.labels, other.labels]), features=features, names=names, views=1)


def test_images_learned_from_and_measured_on_are_named(sets: Sets) -> None:
    assert sets.test is not None
    leaked = sets.test.take(np.array([3, 5]))
    report = run([Prototypes()], Sets(joined(sets.support, leaked), leaked.take(np.array([1])), sets.test)).report
    missing, validation, test, between = report["notices"]
    assert missing.startswith("no validation image of 'class ")
    assert validation == (
        f"1 of the images learned from are among the validation images (equal features): {leaked.names[1]}"
    )
    assert test == (
        f"2 of the images learned from are among the test images (equal features): {leaked.names[0]}, {leaked.names[1]}"
    )
    assert between == (f"1 of the validation images are among the test images (equal features): {leaked.names[1]}")
    assert run([Prototypes()], sets).report["notices"] == []


def test_a_class_without_an_image_counts_among_the_fewest() -> None:
    pool = World(classes=3).samples(4)
    report = run([Gda()], Sets(pool.take(np.flatnonzero(pool.labels != 1)))).report
    assert report["samples"] == {"all": 8, "min": 0, "max": 4}


@pytest.mark.parametrize(
    ("shots", "why"),
    [(None, "without a number of shots"), (12, "no class has more than 12 images:"), (11, "")],
)
def test_draws_of_the_same_images_are_told(sets: Sets, shots: int | None, why: str) -> None:
    notices = run([Prototypes()], sets, shots=shots, seeds=[0, 1]).report["notices"]
    assert notices == ([f"{why} all 2 draws are the same images"] if why else [])


def test_one_picture_with_two_labels_is_named(sets: Sets) -> None:
    twin = sets.support.take(np.array([0]))
    twin = replace(twin, labels=(twin.labels + 1) % 8, names=["twin"])
    report = run([Prototypes()], Sets(joined(sets.support, twin))).report
    assert report["notices"] == ["labelled twice, as two classes: twin (equal features)"]


def test_views_are_not_other_pictures() -> None:
    world = World(classes=4)
    report = run([Prototypes()], Sets(world.samples(4, views=3), None, world.samples(4, prefix="t"))).report
    assert report["notices"] == [] and report["accuracy"]["test"]["images"] == 16


def test_auto_keeps_the_best_and_says_what_else_there_was(sets: Sets) -> None:
    result = run([Prototypes(), Gda(), Tip()], sets, shots=8)
    tried = {each["method"]: (-each["cross_entropy"], each["accuracy"]) for each in result.report["tried"]}
    assert list(tried) == ["prototypes", "gda", "tip"]
    assert result.report["method"] == result.adapter.name == max(tried, key=tried.__getitem__)
    alone = {each.name: selection.fit(each, draw(sets.support, 8))[1] for each in (Prototypes(), Gda(), Tip())}
    assert tried == {name: (-(how.cross_entropy or 0.0), how.accuracy) for name, how in alone.items()}, (
        "each as it would be alone"
    )


def test_auto_tries_what_says_it_is_cheap() -> None:
    names = {adapter.name for adapter in auto.candidates()}
    assert {"prototypes", "ridge", "linear", "tip", "gda"} <= names
    assert not names & {"coop", "lora", "svd", "tip-f", "clip-adapter"}


@pytest.mark.parametrize("shots", [1, 3])
def test_auto_with_nothing_to_compare_on_takes_ridge_and_says_so(sets: Sets, shots: int) -> None:
    result = run([Gda(), Ridge(), Tip()], sets, shots=shots)
    assert result.adapter.name == "ridge" and result.selection.on == "untuned"
    assert "untuned: nothing to compare methods on, so ridge stands" in result.report["notices"]
    assert result.report["tried"] == [{"method": "ridge", "chosen": {}}]
    assert run([Gda(), Tip()], sets, shots=1).adapter.name == "gda", "without it the first"


class Strict(Prototypes):
    """Wants an image of each class."""

    name = "strict"
    all_classes = True


def test_auto_passes_over_a_method_that_refuses(sets: Sets) -> None:
    some = sets.support.take(np.flatnonzero(sets.support.labels != 2))
    explored, tried = auto.explore([Strict(), Tip()], some)
    assert explored.adapter.name == "tip"
    assert tried[0].to_json() == {"method": "strict", "error": "no image of 'class 2': strict needs one of each class"}
    with pytest.raises(UsageError, match="no method can learn from this: no image of 'class 2'"):
        auto.explore([Strict(), Strict()], some)


def test_nothing_to_learn_from_is_refused(sets: Sets) -> None:
    with pytest.raises(UsageError, match="no labelled image"):
        experiment.run([Prototypes()], Sets(sets.support.take(np.empty(0, np.int64))))
