"""Near pairs within clusters: as comparing all with all finds them, whatever the blocks, the order and the threads."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile

import numpy as np
import pytest

from clipkit.features import neighbours
from clipkit.features.clusters import ONE_CLUSTER, Clusters, cluster, default_k
from clipkit.features.neighbours import Neighbours
from clipkit.features.vectors import Vectors


def vectors(rows: np.ndarray, files: int = 1) -> Vectors:
    """Rows f32 in temporary files, each record with something before its features."""
    dtype = np.dtype([("head", "u1", (24,)), ("features", "<f4", (rows.shape[1],))])
    parts = []
    for some in np.array_split(rows, files):
        file = tempfile.TemporaryFile()
        records = np.zeros(len(some), dtype)
        records["features"] = some
        file.write(records.tobytes())
        file.flush()
        parts.append((file, len(some)))
    made = Vectors(parts, dtype, np.arange(len(rows)))
    for file, _ in parts:
        file.close()
    return made


def groups(n: int, dim: int = 24, seed: int = 0) -> np.ndarray:
    """Unit rows f32 [n, dim], many of them near others."""
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((n, dim))
    rows[n // 2 :] = rows[rng.integers(0, n // 2, n - n // 2)]
    rows += rng.choice([0.01, 0.03, 0.3], (n, 1)) * rng.standard_normal((n, dim))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def exact(rows: np.ndarray, limit: float) -> set[tuple[int, int]]:
    wide = rows.astype(np.float64)
    i, j = np.nonzero(np.triu(wide @ wide.T > limit, 1))
    return set(zip(i.tolist(), j.tolist(), strict=True))


def found(made: Neighbours, limit: float, some: np.ndarray, others: np.ndarray) -> set[tuple[int, int]]:
    return {
        (min(a, b), max(a, b))
        for one, other in made.pairs(limit, some, others)
        for a, b in zip(one.tolist(), other.tolist(), strict=True)
    }


def of(rows: np.ndarray, k: int, assign: int) -> Neighbours:
    here = vectors(rows, files=2)
    order = sorted(range(len(rows)), key=lambda i: hashlib.sha256(rows[i].tobytes()).digest())
    return Neighbours(here, cluster(here, np.array(order, np.int64), k, assign))


@pytest.mark.parametrize(("k", "assign"), [(1, 1), (5, 5), (7, 9)])
def test_all_clusters_give_all_pairs(k: int, assign: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "_ROWS", 17)
    monkeypatch.setattr(neighbours, "_COLUMNS", 41)
    monkeypatch.setattr(neighbours, "_AGAIN", 3)
    rows = groups(300)
    made = of(rows, k, assign)
    everything = np.ones(300, bool)
    pairs = exact(rows, 0.97)
    assert len(pairs) > 50
    assert found(made, 0.97, everything, everything) == pairs
    rng = np.random.default_rng(1)
    some, others = rng.random(300) < 0.3, rng.random(300) < 0.6
    asked = {(a, b) for a, b in pairs if (some[a] and others[b]) or (some[b] and others[a])}
    assert found(made, 0.97, some, others) == asked
    assert asked < pairs


def test_one_assignment_is_one_cluster_and_more_find_more() -> None:
    rows = groups(400, seed=2)
    everything = np.ones(400, bool)
    pairs = exact(rows, 0.9)
    by_assign = {assign: found(of(rows, 20, assign), 0.9, everything, everything) for assign in (1, 2, 4)}
    home = of(rows, 20, 1).clusters.nearest[:, 0]
    assert by_assign[1] == {(a, b) for a, b in pairs if home[a] == home[b]}
    assert by_assign[1] <= by_assign[2] <= by_assign[4] <= pairs
    assert len(by_assign[1]) < len(by_assign[4])


@pytest.mark.parametrize("block", [1024, 19])
def test_the_audit_says_what_is_found(monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    monkeypatch.setattr(neighbours, "_ROWS", block)
    monkeypatch.setattr(neighbours, "_COLUMNS", 3 * block)
    rows = groups(400, seed=3)
    made = of(rows, 20, 2)
    everything = np.ones(400, bool)
    chosen = np.arange(0, 400, 3)
    inside = set(chosen.tolist())
    pairs = exact(rows, 0.9)
    both = found(made, 0.9, everything, everything)
    # a pair of two chosen ones is counted for each
    there = sum((a in inside) + (b in inside) for a, b in pairs)
    seen = sum((a in inside) + (b in inside) for a, b in both)
    assert made.audit(0.9, chosen) == (there, seen)
    assert seen < there


def test_the_nearest_earlier() -> None:
    rows = groups(200, seed=4)
    rank = np.random.default_rng(5).permutation(200)
    cosines = rows.astype(np.float64) @ rows.astype(np.float64).T
    before = rank[None] < rank[:, None]
    expected = np.where(before, cosines, -1).max(axis=1)
    np.testing.assert_allclose(of(rows, 1, 1).nearest_earlier(rank), expected, atol=1e-9)
    np.testing.assert_allclose(of(rows, 6, 6).nearest_earlier(rank), expected, atol=1e-9)
    assert expected[rank.argmin()] == -1


def test_what_lies_at_the_limit_is_decided_in_float64() -> None:
    """The angle is such that the float32 product says one thing and the exact one another, for some of these."""
    rng = np.random.default_rng(6)
    rows = groups(64, dim=512, seed=7)
    cosines = rows.astype(np.float64) @ rows.astype(np.float64).T
    single = rows @ rows.T
    differs = np.argwhere(np.triu(np.abs(single - cosines) > 3e-8, 1))
    everything = np.ones(64, bool)
    made = of(rows, 1, 1)
    for i, j in rng.permutation(differs)[:20].tolist():
        limit = (float(single[i, j]) + float(cosines[i, j])) / 2
        assert ((i, j) in found(made, limit, everything, everything)) == (cosines[i, j] > limit)


def test_clusters_depend_neither_on_order_nor_on_threads() -> None:
    program = """if True:
        import sys, faiss, hashlib, numpy as np
        faiss.omp_set_num_threads(int(sys.argv[1]))
        from tests.features.test_neighbours import groups, of
        rows = groups(3000, dim=64)[np.random.default_rng(int(sys.argv[2])).permutation(3000)]
        made = of(rows, 40, 3).clusters
        by_row = np.lexsort(rows.T)
        for part in (made.centroids, made.nearest[by_row], made.distance[by_row]):
            print(hashlib.sha256(part.tobytes()).hexdigest())
    """
    said = {
        subprocess.run(
            [sys.executable, "-c", program, threads, seed], capture_output=True, check=True, text=True
        ).stdout
        for threads, seed in (("1", "0"), ("2", "0"), ("4", "1"))
    }
    assert len(said) == 1


def test_clusters_are_spherical_and_the_nearest_come_first() -> None:
    rows = groups(500, seed=8)
    made = of(rows, 12, 4).clusters
    np.testing.assert_allclose(np.linalg.norm(made.centroids, axis=1), 1, atol=1e-6)
    cosines = rows.astype(np.float64) @ made.centroids.astype(np.float64).T
    taken = np.take_along_axis(cosines, made.nearest.astype(np.int64), axis=1)
    assert (np.diff(taken, axis=1) <= 1e-6).all()
    np.testing.assert_allclose(taken[:, 0], cosines.max(axis=1), atol=1e-6)
    np.testing.assert_allclose(made.distance, 1 - taken[:, 0], atol=1e-12)


@pytest.mark.parametrize("n", [0, 1, 2])
def test_few_or_none(n: int) -> None:
    rows = np.tile(groups(4)[:1], (n, 1))
    made = of(rows, 5, 3)
    everything = np.ones(n, bool)
    assert found(made, 0.5, everything, everything) == ({(0, 1)} if n == 2 else set())
    assert made.audit(0.5, np.arange(n)) == ((2, 2) if n == 2 else (0, 0))
    assert isinstance(made.clusters, Clusters)


def test_how_many_clusters() -> None:
    assert [default_k(n) for n in (0, 1, ONE_CLUSTER, ONE_CLUSTER + 1, 1_000_000)] == [1, 1, 1, 724, 4000]


def test_vectors_of_several_files() -> None:
    rows = groups(101)
    several = vectors(rows, files=3)
    assert (several.take(np.array([100, 0, 50])) == rows[[100, 0, 50]]).all()
    few = several.only(np.array([7, 3, 99]))
    assert len(few) == 3
    assert (np.concatenate([block for _, block in few.blocks(2)]) == rows[[7, 3, 99]]).all()
