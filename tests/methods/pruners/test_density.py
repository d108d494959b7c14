"""density: complexity and quotas worked by hand, and from the formulas, slowly."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clipkit.errors import UsageError
from clipkit.features.centroids import Centroids
from clipkit.methods.pruners import density as module
from clipkit.methods.pruners.base import Pool
from clipkit.methods.pruners.density import complexity, neighbour_distance, softmax
from tests.methods.pruners.pools import made, pool, pools


def test_worked_by_hand() -> None:
    """Three centroids at right angles: d_inter is 1 for all. d_intra is .2, .4, and for the cluster of one the mean of
    both, .3. At tau .1, P is 1 : e^2 : e over their sum 11.107, so .0900, .6652, .2447."""
    three = pool([[0.1, 0.3], [0.2, 0.4, 0.6], [0.5]])
    density = made("density")
    columns = density.columns(three)
    assert columns["d_intra"] == pytest.approx([0.2, 0.4, 0.3])
    assert columns["d_inter"] == pytest.approx([1, 1, 1])
    assert columns["p"] == pytest.approx([0.0900, 0.6652, 0.2447], abs=1e-4)
    # of 3: .270, 1.996, .734 as whole numbers
    assert density.allocate(three, 3).tolist() == [0, 2, 1]
    # of 5: .450, 3.326, 1.224, of which there are but 2, 3 and 1: the .550 that do not fit go to the first
    assert density.allocate(three, 5).tolist() == [1, 3, 1]
    assert density.facts(three, 5)["lambda"] == pytest.approx(1 - 5 / (1 + math.e + math.e**2), abs=1e-6)
    # and those stay that are farthest from their centroids
    assert three.distance[density.choose(three, np.array([1, 2, 0]))].tolist() == [0.3, 0.4, 0.6]


def slow_complexity(given: Pool, neighbours: int) -> np.ndarray:
    """C_j from the formulas, one by one; NaN for an empty cluster."""
    rows = given.centroids.rows.astype(float)

    def apart(i: int, j: int) -> float:
        if given.centroids.spherical:
            return 1 - sum(a * b for a, b in zip(rows[i], rows[j], strict=True))
        return math.dist(rows[i], rows[j])

    members = [[d for d, c in zip(given.distance, given.cluster, strict=True) if c == j] for j in range(given.k)]
    known = [sum(m) / len(m) for m in members if len(m) > 1]
    found = []
    for j in range(given.k):
        if not members[j]:
            found.append(math.nan)
            continue
        intra = sum(members[j]) / len(members[j]) if len(members[j]) > 1 else sum(known) / max(len(known), 1)
        near = sorted(apart(j, i) for i in range(given.k) if i != j and members[i])[:neighbours]
        found.append(intra * (sum(near) / len(near) if near else 0))
    return np.array(found)


@settings(max_examples=100, deadline=None)
@given(pools(), st.integers(1, 10), st.sampled_from([0.05, 0.1, 0.5]), st.integers(0, 2), st.floats(0, 1))
def test_as_the_formulas_say(given_pool: Pool, neighbours: int, tau: float, least: int, part: float) -> None:
    slow = slow_complexity(given_pool, neighbours)
    found = complexity(given_pool, neighbours)["complexity"]
    assert np.allclose(found, slow, atol=1e-9, equal_nan=True)
    lower = np.minimum(least, given_pool.sizes)
    size = int(lower.sum() + part * (len(given_pool) - lower.sum()))
    some = ~np.isnan(slow)
    p = np.zeros(given_pool.k)
    p[some] = np.exp(slow[some] / tau) / np.exp(slow[some] / tau).sum()
    low, high = -float(size) - 1, float(len(given_pool)) + 1  # the level by halving
    for _ in range(200):
        level = (low + high) / 2
        low, high = (level, high) if np.clip(p * size + level, lower, given_pool.sizes).sum() < size else (low, level)
    shares = np.clip(p * size + low, lower, given_pool.sizes)
    quota = made("density", tau=tau, neighbours=neighbours, min_per_cluster=least).allocate(given_pool, size)
    assert (abs(quota - shares) < 1 + 1e-6).all()
    assert (quota >= lower).all()


def test_any_number_of_centroids_looked_at_together(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = np.random.default_rng(0).normal(size=(300, 16)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    for spherical in (True, False):
        centroids = Centroids(rows, np.ones(300, np.int64), spherical, "m@0", "image")
        together = neighbour_distance(centroids, np.arange(300), 299)
        monkeypatch.setattr(module, "_HELD", 1)
        assert np.array_equal(neighbour_distance(centroids, np.arange(300), 299), together)
        monkeypatch.undo()


def test_lower_tau_prefers_complex_clusters_more() -> None:
    values = np.array([0.1, 0.2, np.nan])
    assert softmax(values, 0.01)[1] > softmax(values, 0.1)[1] > softmax(values, 100)[1] == pytest.approx(0.5, abs=1e-3)
    assert np.isnan(softmax(values, 0.1)[2])


def test_what_cannot_be() -> None:
    three = pool([[0.1, 0.3], [0.2, 0.4, 0.6], [0.5]])
    with pytest.raises(UsageError, match="--min-per-cluster 2 of 3 clusters is 5 records, and 4 stay"):
        made("density", min_per_cluster=2).allocate(three, 4)
    for tau in (0, -1, math.nan, math.inf):
        with pytest.raises(UsageError, match="--tau"):
            made("density", tau=tau)


def test_a_single_cluster_of_one() -> None:
    one = pool([[0.4]])
    assert made("density").allocate(one, 1).tolist() == [1]
    assert made("density").columns(one)["p"].tolist() == [1]
