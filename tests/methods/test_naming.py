"""Names for clusters: the formula, and what it is for."""

from __future__ import annotations

import tracemalloc

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from clipkit.methods import naming


def scores(centroids: np.ndarray, concepts: np.ndarray) -> np.ndarray:
    """From the formula, one by one: cos(c_i, t) - 1/k * the sum over the others j of cos(c_j, t)."""
    unit = [centroid / np.linalg.norm(centroid) for centroid in centroids.astype(np.float64)]
    out = np.zeros((len(centroids), len(concepts)))
    for i, own in enumerate(unit):
        for c, concept in enumerate(concepts.astype(np.float64)):
            others = sum(float(other @ concept) for j, other in enumerate(unit) if j != i)
            out[i, c] = own @ concept - others / len(unit)
    return out


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def draw(seed: int, k: int, c: int, d: int = 16) -> tuple[np.ndarray, np.ndarray]:
    normal = np.random.default_rng(seed).standard_normal
    return normal((k, d)).astype(np.float32), unit(normal((c, d)))


def test_two_clusters_by_hand() -> None:
    # cosines with "pet": 0.6 and 0.8; with "cat": 0.6 and 0. Each loses half of the other cluster's.
    centroids = np.array([[0.6, 0.6, 0.52915026], [0.8, 0.0, 0.6]], np.float32)
    concepts = np.array([[1, 0, 0], [0, 1, 0]], np.float32)  # pet, cat
    numbers, found = naming.best(naming.directions(centroids), concepts, 2)
    assert numbers.tolist() == [[1, 0], [0, 1]]  # the first is the cats'; "pet" says as much of both
    assert np.allclose(found, [[0.6 - 0.0, 0.6 - 0.4], [0.8 - 0.3, 0.0 - 0.3]], atol=1e-6)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 12), st.integers(1, 60), st.integers(1, 5))
def test_the_best_by_the_formula(seed: int, k: int, c: int, top: int) -> None:
    centroids, concepts = draw(seed, k, c)
    numbers, found = naming.best(naming.directions(centroids), concepts, top)
    expected = scores(centroids, concepts)
    assert numbers.shape == found.shape == (k, min(top, c))
    for row, chosen, score in zip(expected, numbers, found, strict=True):
        assert np.allclose(score, np.sort(row)[::-1][:top], atol=1e-9)
        assert np.allclose(row[chosen], score, atol=1e-9)
        assert len(set(chosen.tolist())) == len(chosen)


def test_one_cluster_is_named_by_its_cosines() -> None:
    centroids, concepts = draw(0, 1, 30)
    numbers, found = naming.best(naming.directions(centroids), concepts, 30)
    cosines = (centroids[0] / np.linalg.norm(centroids[0])) @ concepts.T
    assert numbers[0].tolist() == np.argsort(-cosines).tolist()
    assert np.allclose(found[0], np.sort(cosines)[::-1], atol=1e-6)


def test_a_gap_and_hubs_mislead_the_cosine_alone() -> None:
    """Truth planted: concepts shifted from the images by one vector, and hubs that lie towards the images' cone."""
    normal = np.random.default_rng(1).standard_normal
    images = unit(normal((30, 64)) + 8 * np.eye(64)[0])
    true = unit(images + 0.6 * unit(normal((30, 64))) - 1.0 * np.eye(64)[0])
    hubs = unit(np.eye(64)[0] + 0.4 * unit(normal((200, 64))))
    concepts = np.concatenate([true, hubs])
    plain = (images @ concepts.T).argmax(axis=1)
    numbers, _ = naming.best(naming.directions(images), concepts, 1)
    assert (plain == np.arange(30)).mean() < 0.2
    assert numbers[:, 0].tolist() == list(range(30))


def test_centroids_count_by_direction_alone() -> None:
    centroids, _ = draw(2, 5, 40)
    longer = centroids * np.array([[1], [2], [0.5], [4], [8]], np.float32)
    assert np.array_equal(naming.directions(centroids), naming.directions(longer))
    nowhere = np.concatenate([centroids, np.zeros((1, 16), np.float32)])
    assert np.isfinite(naming.directions(nowhere)).all()


def test_equal_concepts_stand_in_their_order() -> None:
    centroids, concepts = draw(3, 4, 3)
    numbers, found = naming.best(naming.directions(centroids), np.concatenate([concepts, concepts]), 6)
    assert (numbers[:, 1::2] == numbers[:, ::2] + 3).all()
    assert (found[:, 1::2] == found[:, ::2]).all()


def test_a_row_hangs_on_no_other() -> None:
    centroids, concepts = draw(4, 50, 300)
    directions = naming.directions(centroids)
    numbers, found = naming.best(directions, concepts, 3)
    for i in range(0, 50, 7):
        alone = naming.best(directions[i : i + 1], concepts, 3)
        assert np.array_equal(alone[0][0], numbers[i]) and np.array_equal(alone[1][0], found[i])
    assert [part.shape for part in naming.best(directions[:0], concepts, 3)] == [(0, 3), (0, 3)]


def test_long_lists_of_names_are_compared_a_few_clusters_at_a_time() -> None:
    """In f64 all pairs at once would be 300 x 400 x 256 x 8 bytes: 246 MB."""
    centroids, concepts = draw(0, 300, 500, 256)
    directions = naming.directions(centroids)
    tracemalloc.start()
    numbers, _ = naming.best(directions, concepts, 400)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert numbers.shape == (300, 400)
    assert peak < 80e6
