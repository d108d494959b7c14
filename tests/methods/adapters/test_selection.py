"""What is held out of the support, and that nothing else decides."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clipkit.methods.adapters import selection
from clipkit.methods.adapters.data import Features, Samples, Task
from clipkit.methods.adapters.prototypes import Prototypes
from clipkit.methods.adapters.tuning import accuracy, cross_entropy, temperature
from tests.methods.adapters.synthetic import World


def of_counts(*counts: int, seed: int = 0) -> Samples:
    """So many samples of each class, named CLASS-NUMBER."""
    labels = np.repeat(np.arange(len(counts)), counts)
    names = [f"{label}-{number}" for label, count in enumerate(counts) for number in range(count)]
    task = Task(tuple(map(str, range(len(counts)))), np.eye(len(counts), 8, dtype=np.float32), 10.0, seed=seed)
    rows = np.random.default_rng(0).standard_normal((len(labels), 8)).astype(np.float32)
    return Samples(task, labels, Features(rows), names=names)


@pytest.mark.parametrize(
    ("counts", "held"),
    [
        ((3, 3, 3), (0, 0, 0)),
        ((4, 4, 4), (2, 2, 2)),
        ((5, 8, 100), (2, 4, 4)),
        ((1, 3, 4, 4, 9), (0, 1, 2, 2, 4)),  # most have 4: the others give what they can
        ((3, 3, 9), (0, 0, 0)),  # one class can't choose for all
        ((4, 3), (0, 0)),
        ((0, 4), (0, 2)),
    ],
)
def test_how_many_of_each_class(counts: tuple[int, ...], held: tuple[int, ...]) -> None:
    samples = of_counts(*counts)
    kept, out = selection.hold_out(samples)
    assert tuple(samples.take(out).counts) == held
    assert sorted([*kept, *out]) == list(range(len(samples)))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 9), min_size=1, max_size=6), st.integers(0, 5), st.randoms())
def test_who_is_held_out_does_not_depend_on_the_order(counts: list[int], seed: int, random: object) -> None:
    samples = of_counts(*counts, seed=seed)
    order = np.random.default_rng(seed).permutation(len(samples))
    mixed = samples.take(order)
    assert set(samples.take(selection.hold_out(samples)[1]).names) == set(
        mixed.take(selection.hold_out(mixed)[1]).names
    )


def test_another_seed_holds_out_others() -> None:
    held = {seed: set(selection.hold_out(of_counts(16, 16, seed=seed))[1].tolist()) for seed in range(4)}
    assert len(set(map(frozenset, held.values()))) == 4


def test_with_validation_it_decides_and_nothing_is_held_out() -> None:
    world = World(classes=5)
    support, validation = world.samples(8), world.samples(4, prefix="v")
    explored = selection.explore(Prototypes(), support, validation)
    direct = Prototypes().fit(support, validation)
    assert explored.adapter.chosen_ == direct.chosen_
    logits = direct.logits(validation.plain)
    assert explored.adapter.temperature == temperature(logits, validation.labels)
    logits = logits / explored.adapter.temperature
    assert (explored.adapter.logits(validation.plain) == logits).all()
    assert explored.selection == selection.Selection(
        "validation",
        20,
        round(accuracy(logits, validation.labels), 6),
        round(cross_entropy(logits, validation.labels), 6),
    )
    assert explored.trials == ((explored.adapter, validation),)


def test_held_out_chooses_and_a_fit_on_all_follows() -> None:
    support = World(classes=5).samples(8)
    kept, held = selection.hold_out(support)
    part = Prototypes().fit(support.take(kept), support.take(held))
    explored = selection.explore(Prototypes(), support)
    assert explored.selection.on == "held-out" and explored.selection.samples == 20
    assert explored.adapter.chosen_ == part.chosen_
    part.temperature = temperature(part.logits(support.take(held).plain), support.labels[held])
    whole = Prototypes(alpha=part.chosen_["alpha"]).fit(support)
    whole.temperature = part.temperature
    assert (explored.adapter.logits(support.plain) == whole.logits(support.plain)).all()
    ((trial, unseen),) = explored.trials
    assert set(unseen.names) == {support.names[row] for row in held}
    assert (trial.logits(unseen.plain) == part.logits(unseen.plain)).all(), "the later fit leaves it as it was"


def test_leaving_one_after_another_out() -> None:
    samples = of_counts(1, 2, 3)
    trials = selection.cross_validate(Prototypes(), samples)
    left = Counter(name for _, unseen in trials for name in unseen.names)
    assert left == Counter({"1-0": 1, "1-1": 1, "2-0": 1, "2-1": 1, "2-2": 1}), "each once; the lonely one never"
    for fitted, unseen in trials:
        assert (unseen.counts <= 1).all()
        assert fitted.state_["counts"].sum() + len(unseen) == 6
    assert selection.cross_validate(Prototypes(), of_counts(1, 1)) == ()
