"""Pools for tests of pruners."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from hypothesis import strategies as st

from clipkit.features.centroids import Centroids
from clipkit.methods import PRUNERS
from clipkit.methods.pruners.base import Pool, Pruner

# What a method cannot be made without. A new one may need a line here.
NEEDED: dict[str, dict[str, Any]] = {"tldr": {"best_by": "s"}, "image-based": {"reference": ["r"]}}


def made(name: str, *, sized: bool = True, **options: Any) -> Pruner:
    pruner: Pruner = PRUNERS.get(name)({**NEEDED.get(name, {}), **options, "sized": sized})
    return pruner


def pool(
    clusters: list[list[float]],
    *,
    rows: np.ndarray | None = None,
    scores: list[float] | None = None,
    hits: list[int] | None = None,
) -> Pool:
    """A pool from the distances of each cluster's members; tickets ascend. rows: the centroids; orthogonal if None."""
    cluster = np.repeat(np.arange(len(clusters)), [len(members) for members in clusters]).astype(np.int32)
    distance = np.array([d for members in clusters for d in members], float)
    rows = np.eye(len(clusters)) if rows is None else rows
    return Pool(
        cluster,
        distance,
        np.arange(len(cluster), dtype=np.uint64),
        np.full(len(cluster), np.nan) if scores is None else np.array(scores, float),
        len(clusters),
        None if hits is None else np.array(hits),
        Centroids(rows.astype(np.float32), np.zeros(len(rows), np.int64), True, "m@0", "image"),
    )


def shuffled(given: Pool, order: np.ndarray) -> Pool:
    """The same records in another order."""
    fields = {name: getattr(given, name)[order] for name in ("cluster", "distance", "ticket", "score")}
    return replace(given, **fields)


@st.composite
def pools(draw: st.DrawFn, *, one_cluster: bool = False) -> Pool:
    """Any pool: empty and one-member clusters, equal distances and scores, records without a score."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n, k = draw(st.integers(1, 60)), 1 if one_cluster else draw(st.integers(1, 9))
    cluster = rng.integers(0, rng.integers(1, k + 1), n).astype(np.int32)
    score = rng.integers(0, 5, n).astype(float)
    score[rng.random(n) < 0.2] = np.nan
    hits = rng.integers(0, 4, k)
    hits[rng.integers(0, k)] += 1
    rows = rng.standard_normal((k, 5))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    ticket = rng.permutation(n).astype(np.uint64)
    centroids = Centroids(rows.astype(np.float32), np.zeros(k, np.int64), bool(rng.integers(0, 2)), "m@0", "image")
    return Pool(cluster, rng.integers(0, 8, n) / 10, ticket, score, k, hits, centroids)
