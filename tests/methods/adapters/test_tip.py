"""tip against the paper's formula in plain Python, and by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from clipkit.methods.adapters import selection, tip
from clipkit.methods.adapters.data import Features, Samples, Task, unit
from clipkit.methods.adapters.tip import Cache, Tip
from clipkit.methods.adapters.tip_f import TipF
from clipkit.methods.adapters.tuning import score


def made(space: str = "joint", shots: int = 3, views: int = 1, seed: int = 0, count: int = 4) -> Samples:
    """Samples of `count` classes around means of their own, in both spaces; texts that are poor but not blind."""
    draw = np.random.default_rng(7)
    means = unit(draw.standard_normal((count, 16)))
    wide = unit(draw.standard_normal((count, 24)))
    text = unit(means + 0.4 * draw.standard_normal(means.shape))
    task = Task(tuple(f"class {c}" for c in range(count)), text, 20.0, -3.0, space=space)  # type: ignore[arg-type]
    draw = np.random.default_rng(seed)
    labels = np.repeat(np.arange(count), shots)
    each = np.repeat(labels, views)
    joint = unit(means[each] + 0.25 * draw.standard_normal((len(each), 16)))
    backbone = unit(wide[each] + 0.2 * draw.standard_normal((len(each), 24)))
    return Samples(task, labels, Features(joint, backbone), views, names=[f"{seed}-{n}" for n in range(len(labels))])


def by_hand(support: Samples, query: Features, alpha: float, beta: float) -> np.ndarray:
    """scale f.t + bias + alpha sum_i exp(-beta (1 - f.F_i)) L_i, one number at a time."""
    task = support.task
    keys = support.features.of(task.space).astype(np.float64).reshape(len(support), support.views, -1).mean(axis=1)
    keys /= np.linalg.norm(keys, axis=1, keepdims=True)
    out = np.zeros((len(query), len(task.classes)))
    for n in range(len(query)):
        for c in range(len(task.classes)):
            out[n, c] = task.scale * math.fsum(query.joint[n].astype(float) * task.text[c]) + (task.bias or 0)
        for key, label in zip(keys, support.labels, strict=True):
            cosine = math.fsum(query.of(task.space)[n].astype(float) * key)
            out[n, label] += alpha * math.exp(-beta * (1 - cosine))
    return out


@pytest.mark.parametrize("space", ["joint", "backbone"])
@pytest.mark.parametrize("views", [1, 3])
def test_logits_are_the_papers(space: str, views: int) -> None:
    support, query = made(space, views=views), made(space, seed=1).plain
    fitted = Tip(alpha=2.5, beta=5.5).fit(support)
    np.testing.assert_allclose(fitted.logits(query), by_hand(support, query, 2.5, 5.5), atol=1e-5)
    assert fitted.fold() is None


def test_blocks_give_what_one_piece_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    support, query = made(shots=9), made(seed=1, shots=5).plain
    whole = Tip().fit(support).logits(query)
    monkeypatch.setattr(tip, "_KEYS", 5)  # classes of 9 keys across blocks
    monkeypatch.setattr(tip, "_CELLS", 20)
    np.testing.assert_allclose(Tip().fit(support).logits(query), whole, atol=1e-12)
    for held in (0, 1 << 20):  # the search, with and without the products in memory
        monkeypatch.setattr(tip, "_HELD", held)
        cache = Cache(support.plain.joint, support.labels, 4)
        np.testing.assert_allclose(cache.searcher(query.joint)(2.0), cache.votes(query.joint, 2.0), atol=1e-5)


def test_by_hand() -> None:
    """The query is the first key and at a right angle to the second: votes 2 and 2 / e; the third has their mean."""
    task = Task(("a", "b", "c"), np.eye(3, dtype=np.float32), 1.0)
    support = Samples(task, np.array([1, 0]), Features(np.eye(3, dtype=np.float32)[[1, 0]]))
    logits = Tip(alpha=2.0, beta=1.0).fit(support).logits(Features(np.eye(3, dtype=np.float32)[:1]))
    np.testing.assert_allclose(logits, [[1 + 2, 2 / math.e, 1 + 1 / math.e]])


def test_a_product_above_one_counts_as_one() -> None:
    row = np.full((1, 3), np.float32(0.57735033))  # a little longer than 1
    support = Samples(Task(("a", "b"), row.repeat(2, 0), 1.0), np.array([0]), Features(row))
    assert Tip(alpha=1.0, beta=1e6).fit(support)._cache().votes(row, 1e6)[0, 0] == 1.0


def test_uneven_classes_vote_by_their_means() -> None:
    """Copies of samples change the mean count alone; a class without any is neither for nor against."""
    support, query = made(count=4, shots=2), made(seed=1).plain
    votes = Tip().fit(support)._cache().votes(query.joint, 3.0)
    uneven = support.take(np.array([0, 1, 0, 1, 0, 1, 2, 3, 6, 7]))  # class 2 is gone
    got = Tip().fit(uneven)._cache().votes(query.joint, 3.0)
    wanted = votes / 2 * (6 + 2 + 2) / 3
    wanted[:, 2] = wanted[:, [0, 1, 3]].mean(axis=1)
    np.testing.assert_allclose(got, wanted, atol=1e-9)


@pytest.mark.parametrize("counts", [(1, 1, 1, 16), (16, 2, 2, 0), (0, 8, 8, 8)])
def test_uneven_and_missing_classes_leave_the_others_a_chance(counts: tuple[int, ...]) -> None:
    pool, query = made(shots=16), made(seed=99, shots=50)
    support = pool.take(np.flatnonzero(np.tile(np.arange(16), 4) < np.array(counts)[pool.labels]))
    before = score(query.task.zero_shot(query.plain), query.labels)[0]
    for adapter in (Tip(), TipF()):
        tuned, _ = selection.fit(adapter, support)
        assert score(tuned.logits(query.plain), query.labels)[0] >= before - 0.03


def test_order_is_nothing_and_one_row_is_alone() -> None:
    support, validation, query = made(shots=6), made(seed=1), made(seed=2).plain
    shuffled = support.take(np.random.default_rng(0).permutation(len(support)))
    one, other = Tip().fit(support, validation), Tip().fit(shuffled, validation)
    np.testing.assert_array_equal(one.logits(query), other.logits(query))
    assert one.chosen_ == other.chosen_
    np.testing.assert_allclose(one.logits(query.take(slice(2, 3))), one.logits(query)[2:3], atol=1e-12)


def test_alpha_and_beta_are_chosen_where_not_given() -> None:
    support, validation = made("backbone", shots=2), made("backbone", seed=1, shots=8)
    both = Tip().fit(support, validation)
    assert set(both.chosen_) == {"alpha", "beta"}
    top = score(both.logits(validation.plain), validation.labels)
    assert top >= score(Tip().fit(support).logits(validation.plain), validation.labels)
    assert top >= score(support.task.zero_shot(validation.plain), validation.labels)
    assert set(Tip(alpha=3.0).fit(support, validation).chosen_) == {"beta"}
    assert set(Tip(beta=3.0).fit(support, validation).chosen_) == {"alpha"}
    assert Tip(alpha=3.0, beta=2.0).fit(support, validation).chosen_ == {}
    again = Tip().fit(support, chosen=both.chosen_)
    np.testing.assert_array_equal(again.logits(validation.plain), both.logits(validation.plain))


def test_alpha_0_is_zero_shot() -> None:
    support, query = made(), made(seed=1).plain
    np.testing.assert_array_equal(Tip(alpha=0.0).fit(support).logits(query), support.task.zero_shot(query))


@pytest.mark.parametrize("shots", [1, 2, 16])
def test_untuned_is_no_worse_than_zero_shot(shots: int) -> None:
    query = made(seed=99, shots=100, count=10)
    before = score(query.task.zero_shot(query.plain), query.labels)[0]
    after = score(Tip().fit(made(shots=shots, count=10)).logits(query.plain), query.labels)[0]
    assert before < 0.99
    assert after >= before - 0.005


def test_untuned_bears_classes_of_uneven_size() -> None:
    query = made(seed=99, shots=50, count=10)
    support = made(shots=8, count=10)
    ranks = np.tile(np.arange(8), 10)
    uneven = support.take(np.flatnonzero(ranks < np.array([1, 8] * 5)[support.labels]))
    before = score(query.task.zero_shot(query.plain), query.labels)[0]
    assert score(Tip().fit(uneven).logits(query.plain), query.labels)[0] >= before - 0.005
