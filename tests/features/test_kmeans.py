"""k-means: by hand, as its definition says, and the same bits in any order, in any blocks, on any number of threads."""

from __future__ import annotations

import itertools
import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clipkit.features import kmeans
from clipkit.features.centroids import Centroids
from clipkit.features.kmeans import Fitted
from tests.features.test_neighbours import vectors

OF = {"model": "m@1", "by": "image"}
generators = st.integers(0, 2**32 - 1).map(np.random.default_rng)
both_metrics = pytest.mark.parametrize("spherical", [True, False], ids=["spherical", "euclidean"])


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def groups(rng: np.random.Generator, n: int, dim: int = 12, centres: int = 6, spread: float = 0.4) -> np.ndarray:
    """Unit rows f32 [n, dim] around some centres."""
    middle = rng.standard_normal((centres, dim))
    return unit(middle[rng.integers(0, centres, n)] + spread * rng.standard_normal((n, dim)))


def cluster(rows: np.ndarray, k: int, order: np.ndarray | None = None, **more: object) -> Fitted:
    order = np.arange(len(rows)) if order is None else order
    return kmeans.cluster(vectors(rows, files=2), order, k, **OF, **more)  # type: ignore[arg-type]


def inertia(rows: np.ndarray, centroids: np.ndarray, spherical: bool) -> float:
    """By definition: the mean over the vectors of what lies between them and the nearest centroid."""
    wide, middle = rows.astype(np.float64), centroids.astype(np.float64)
    if spherical:
        return float((1 - wide @ middle.T).min(axis=1).mean())
    return float(((wide[:, None] - middle[None]) ** 2).sum(axis=2).min(axis=1).mean())


def small_samples(monkeypatch: pytest.MonkeyPatch, least: int) -> None:
    """Train on a part even where there are few vectors."""
    monkeypatch.setattr(kmeans, "_LEAST_SAMPLE", least)
    monkeypatch.setattr(kmeans, "_TRAINED_ON", 2)


def directions(*degrees: float) -> np.ndarray:
    angles = np.radians(degrees)
    return unit(np.stack([np.cos(angles), np.sin(angles)], axis=1))


@both_metrics
def test_four_points_and_two_clusters(spherical: bool) -> None:
    """At 0, 10, 90 and 100 degrees: centres at 5 and 95, and 5 degrees from each point to its own."""
    made = cluster(directions(0, 10, 90, 100), 2, spherical=spherical)
    a, b, c, d = made.nearest.tolist()
    assert a == b != c == d
    assert made.centroids.sizes.tolist() == [2, 2]
    middle = directions(5, 95) * (1 if spherical else math.cos(math.radians(5)))  # a mean lies within the circle
    np.testing.assert_allclose(made.centroids.rows[[a, c]], middle, atol=1e-7)
    five = math.radians(5)
    np.testing.assert_allclose(made.distance, 1 - math.cos(five) if spherical else math.sin(five), atol=1e-6)
    assert made.inertia == pytest.approx(1 - math.cos(five) if spherical else math.sin(five) ** 2, abs=1e-6)


@both_metrics
@pytest.mark.parametrize("k", [1, 2, 5, 9])
def test_as_the_definition_says(spherical: bool, k: int) -> None:
    """Lloyd's iterations written down in f64, from the same first centroids."""
    rng = np.random.default_rng(k)
    rows = groups(rng, 300)
    order = rng.permutation(300)
    wide = rows.astype(np.float64)
    centroids = wide[order[:k]]
    for _ in range(kmeans.ITERATIONS):
        apart = ((wide[:, None] - centroids[None]) ** 2).sum(axis=2) if not spherical else 1 - wide @ centroids.T
        labels = apart.argmin(axis=1)
        assert len(np.unique(labels)) == k, "chosen so that none is empty"
        centroids = np.stack([wide[labels == number].mean(axis=0) for number in range(k)])
        if spherical:
            centroids /= np.linalg.norm(centroids, axis=1, keepdims=True)
    made = cluster(rows, k, order, spherical=spherical, init="random")
    np.testing.assert_allclose(made.centroids.rows, centroids, atol=2e-6)
    assert inertia(rows, made.centroids.rows, spherical) == pytest.approx(made.inertia, abs=1e-7)
    apart = ((wide[:, None] - centroids[None]) ** 2).sum(axis=2) if not spherical else 1 - wide @ centroids.T
    assert np.array_equal(made.nearest, apart.argmin(axis=1))


@both_metrics
def test_inertia_never_rises(spherical: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    small_samples(monkeypatch, 40)
    monkeypatch.setattr(kmeans, "ITERATIONS", 1)
    for seed in range(6):
        rows = groups(np.random.default_rng(seed), 400, spread=0.8)
        init = "random" if seed % 2 else "k-means++"
        curve = [cluster(rows, 12, spherical=spherical, init=init, passes=n).inertia for n in range(9)]
        assert all(later <= earlier + 1e-7 for earlier, later in itertools.pairwise(curve)), curve
        assert curve[-1] < curve[0] - 1e-3


def test_passes_go_over_what_the_sample_left_out_and_end_when_nothing_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    small_samples(monkeypatch, 50)
    rows = groups(np.random.default_rng(0), 500)
    sample, all_of_them = cluster(rows, 6, passes=0), cluster(rows, 6, passes=100)
    assert (sample.sampled, sample.passes) == (50, 0)
    assert cluster(rows, 6).passes == min(kmeans.PASSES, all_of_them.passes)
    assert 0 < all_of_them.passes < 100
    means = [rows[all_of_them.nearest == number].astype(np.float64).mean(axis=0) for number in range(6)]
    np.testing.assert_allclose(all_of_them.centroids.rows, unit(np.stack(means)), atol=1e-7)
    monkeypatch.setattr(kmeans, "_LEAST_SAMPLE", 500)
    assert cluster(rows, 6).passes == 0  # the sample was all


@settings(max_examples=20, deadline=None)
@given(generators, st.booleans(), st.sampled_from(["random", "k-means++"]), st.sampled_from([50_000, 4]))
def test_the_order_of_the_input_is_nothing_and_so_are_blocks(
    rng: np.random.Generator, spherical: bool, init: str, two_levels_from: int
) -> None:
    n, k = int(rng.integers(1, 200)), int(rng.integers(1, 20))
    rows = groups(rng, n)
    rows[rng.integers(0, n, n // 3)] = rows[0]  # duplicates
    tickets = rng.permutation(n)
    shuffled = rng.permutation(n)
    with pytest.MonkeyPatch.context() as patch:
        small_samples(patch, 30)
        patch.setattr(kmeans, "TWO_LEVELS_FROM", two_levels_from)
        how = {"spherical": spherical, "init": init, "passes": 2}
        one = cluster(rows, k, np.argsort(tickets), **how)
        patch.setattr(kmeans, "_BLOCK", 7)
        other = cluster(rows[shuffled], k, np.argsort(tickets[shuffled]), **how)
    assert one.centroids.rows.tobytes() == other.centroids.rows.tobytes()
    assert one.centroids.via == other.centroids.via
    assert np.array_equal(one.centroids.sizes, other.centroids.sizes)
    assert one.nearest[shuffled].tobytes() == other.nearest.tobytes()
    assert one.distance[shuffled].tobytes() == other.distance.tobytes()
    assert one.inertia == other.inertia


def test_the_number_of_threads_is_nothing() -> None:
    program = """if True:
        import sys, faiss, hashlib, numpy as np
        from clipkit.features import kmeans
        from tests.features.test_kmeans import cluster, groups
        faiss.omp_set_num_threads(int(sys.argv[1]))
        rows = groups(np.random.default_rng(0), 3000, dim=64, centres=40, spread=1.0)
        for from_k in (50_000, 10):
            kmeans.TWO_LEVELS_FROM = from_k
            made = cluster(rows, 60, passes=1)
            print(made.centroids.via, hashlib.sha256(made.nearest.tobytes() + made.distance.tobytes()).hexdigest())
    """
    said = {
        subprocess.run([sys.executable, "-c", program, threads], capture_output=True, check=True, text=True).stdout
        for threads in ("1", "2", "3")
    }
    assert len(said) == 1
    assert len(said.pop().splitlines()) == 2


def test_sums_are_exact_in_any_order() -> None:
    rng = np.random.default_rng(0)
    rows, labels = groups(rng, 5000, dim=16), rng.integers(0, 3, 5000).astype(np.int32)
    found = []
    for _ in range(4):
        sums, sizes = np.zeros((5, 16), np.int64), np.zeros(5, np.int64)
        for some in np.array_split(rng.permutation(5000), int(rng.integers(1, 9))):
            kmeans._add(sums, sizes, labels[some], rows[some])
        found.append((sums.tobytes(), sizes.tobytes()))
    assert len(set(found)) == 1
    assert sizes.tolist() == np.bincount(labels, minlength=5).tolist()
    exact = [math.fsum(column) for column in rows[labels == 1].T.tolist()]
    np.testing.assert_allclose(sums[1] / kmeans._FIXED, exact, rtol=0, atol=5000 / kmeans._FIXED / 2)
    assert not sums[3:].any()


# Clusters that are left empty, and vectors that are equal


@both_metrics
def test_an_empty_cluster_goes_to_the_farthest_vector(spherical: bool) -> None:
    rows = directions(0, 4, 40, 320, 8)  # 40 and -40 are the farthest from 0, equally far
    start = Centroids(directions(0, 180, 181), np.zeros(3, np.int64), spherical, "m@1", "image")
    for order, first in (([0, 1, 2, 3, 4], 2), ([4, 3, 2, 1, 0], 3)):
        better = kmeans._iterate(start, vectors(rows), np.array(order))
        assert np.array_equal(better.rows[1], rows[first])
        assert np.array_equal(better.rows[2], rows[5 - first])
    assert len(np.unique(better.nearest(rows))) == 3


def test_it_is_moved_to_a_place_of_its_own() -> None:
    """Two equal farthest vectors are one place; the next empty cluster goes to the next."""
    rows = directions(0, 60, 60, 30)
    start = Centroids(directions(0, 180, 181), np.zeros(3, np.int64), True, "m@1", "image")
    better = kmeans._iterate(start, vectors(rows), np.arange(4))
    np.testing.assert_allclose(better.rows[1:], directions(60, 30), atol=1e-7)


@both_metrics
@pytest.mark.parametrize("init", ["random", "k-means++"])
def test_more_clusters_than_distinct_vectors(spherical: bool, init: str) -> None:
    made = cluster(np.repeat(directions(0, 50), 6, axis=0), 5, spherical=spherical, init=init, passes=2)
    assert len(made.centroids) == 5
    assert sorted(made.centroids.sizes.tolist()) == [0, 0, 0, 6, 6]
    assert made.distance.max() < 1e-6


def test_vectors_that_cancel_leave_their_centroid_where_it_was() -> None:
    made = cluster(directions(0, 180), 1, init="random")
    assert np.array_equal(made.centroids.rows, directions(0))


# Where it begins


def test_random_begins_with_the_first_distinct_of_the_order() -> None:
    rows = directions(0, 10, 10, 20, 30)
    assert kmeans._first(vectors(rows), np.array([2, 1, 0, 4, 3]), 3).tolist() == [2, 0, 4]
    assert kmeans._first(vectors(rows), np.array([2, 1]), 3).tolist() == [2, 2, 2]


def test_k_means_plus_plus_draws_by_the_square_of_the_distance() -> None:
    """From 0 degrees, the others at chords of squared length 2 (1 - cos): how often each is second."""
    rows = directions(0, 30, 90, 180, 0)
    order = np.arange(5)
    draws = 4000
    second = np.array([kmeans._plus_plus(vectors(rows), order, 2, seed)[1] for seed in range(draws)])
    weights = 2 * (1 - np.cos(np.radians([0, 30, 90, 180, 0])))
    expected = weights / weights.sum()
    counts = np.bincount(second, minlength=5)
    assert (np.abs(counts - draws * expected) <= 4 * np.sqrt(draws * expected * (1 - expected))).all()
    assert counts[0] == counts[4] == 0


def test_k_means_plus_plus_finds_groups_that_lie_apart() -> None:
    rng = np.random.default_rng(0)
    rows = groups(rng, 400, dim=32, centres=20, spread=0.05)
    assert cluster(rows, 20).inertia < 0.7 * cluster(rows, 20, init="random").inertia
    assert cluster(rows, 20, seed=1).centroids.via != cluster(rows, 20).centroids.via


# How many


@both_metrics
@pytest.mark.parametrize("init", ["random", "k-means++"])
def test_as_many_clusters_as_vectors_and_one(spherical: bool, init: str) -> None:
    rows = groups(np.random.default_rng(1), 30)
    each = cluster(rows, 30, spherical=spherical, init=init)
    assert sorted(each.nearest.tolist()) == list(range(30))
    assert each.distance.max() < 1e-6
    assert np.array_equal(cluster(rows, 99, spherical=spherical, init=init).nearest, each.nearest)
    one = cluster(rows, 1, spherical=spherical, init=init)
    mean = rows.astype(np.float64).mean(axis=0)
    np.testing.assert_allclose(one.centroids.rows[0], mean / (np.linalg.norm(mean) if spherical else 1), atol=1e-7)


def test_none_at_all() -> None:
    made = cluster(np.empty((0, 8), np.float32), 3)
    assert len(made.centroids) == 1
    assert made.centroids.sizes.tolist() == [0]
    assert made.inertia == 0


@pytest.mark.parametrize(("n", "k"), [(0, 1), (1, 1), (2, 1), (8, 2), (50, 5), (960, 22), (1_000_000, 707)])
def test_auto(n: int, k: int) -> None:
    assert kmeans.auto_k(n) == k


# Two levels


def test_seats_by_largest_remainder() -> None:
    assert kmeans.shared_out(np.array([10, 7, 3]), 5).tolist() == [2, 2, 1]  # 2.5, 1.75 and 0.75
    assert kmeans.shared_out(np.array([5, 5, 5]), 4).tolist() == [2, 1, 1]
    assert kmeans.shared_out(np.array([0, 9]), 9).tolist() == [0, 9]


@given(st.lists(st.integers(0, 10**8), min_size=1, max_size=30).filter(any), st.floats(0.0, 1.0))
def test_seats_add_up_and_are_within_one_of_the_proportion(sizes: list[int], part: float) -> None:
    k = max(1, round(part * sum(sizes)))
    seats = kmeans.shared_out(np.array(sizes), k).tolist()
    assert sum(seats) == k
    for seat, size in zip(seats, sizes, strict=True):
        assert abs(seat * sum(sizes) - k * size) < sum(sizes)
        assert 0 <= seat <= size


@both_metrics
@pytest.mark.parametrize("k", [16, 37, 400])
def test_two_levels_give_exactly_k_in_groups(spherical: bool, k: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kmeans, "TWO_LEVELS_FROM", 16)
    rows = groups(np.random.default_rng(k), 400, centres=30)
    made = cluster(rows, k, spherical=spherical, passes=1)
    found = made.centroids
    assert found.groups is not None
    assert found.rows.shape == (k, 12)
    assert (found.groups.starts[0], found.groups.starts[-1]) == (0, k)
    assert (np.diff(found.groups.starts) >= 1).all()
    assert len(found.groups.rows) <= round(math.sqrt(k))
    assert found.sizes.sum() == 400
    nearest, distance = kmeans.assign(found, vectors(rows))
    assert nearest.tobytes() == made.nearest.tobytes()
    assert distance.tobytes() == made.distance.tobytes()
    flat = inertia(rows, found.rows, spherical)
    assert flat <= made.inertia + 1e-9
    assert made.inertia < 1.25 * flat + 1e-6  # what is lost by looking in 8 groups
    if k == 400:
        assert made.distance.max() < 1e-6


def test_two_levels_are_about_as_good_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = groups(np.random.default_rng(5), 3000, dim=24, centres=60, spread=0.3)
    one = cluster(rows, 100)
    monkeypatch.setattr(kmeans, "TWO_LEVELS_FROM", 100)
    two, without = cluster(rows, 100), cluster(rows, 100, passes=0)
    assert (two.sampled, two.passes, without.passes) == (3000, kmeans.PASSES, 0)
    assert two.inertia < min(without.inertia, 1.15 * one.inertia)
