"""Names for clusters: the concepts that a cluster is nearer to than the other clusters are.

The nearest concept alone is a weak name. Image and text features lie in two cones apart (the modality gap: Liang et
al., 2022), and some concepts are near everything (hubs: Radovanovic et al., 2010; Dinu et al., 2015). Both add about
the same to a concept's similarity to any cluster. So the score of concept t for cluster i of k is

    cos(c_i, t) - 1/k * sum over the others j of cos(c_j, t)

With one cluster it is the cosine; with many it is the cosine less its mean, the one-sided part of CSLS (Conneau et
al., 2018) with all clusters for neighbours. A score hangs on the centroids and its concept, not on what other concepts
there are. benchmarks/naming.py compares it with other rules; docs/cluster.md has the figures.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

_SPARE: Final = 8  # candidates more than asked for: f32 finds them, f64 decides
_PAIRS: Final = 1 << 14  # of directions and candidates, compared in f64 at once


def directions(centroids: np.ndarray) -> np.ndarray:
    """f64 [k, d] of centroids [k, d]: their products with a concept's unit features are its scores.

    Centroids of any length count by their direction; zeros have none, and score 0 less the others' part.
    """
    wide = centroids.astype(np.float64)
    length = np.sqrt(np.einsum("kd,kd->k", wide, wide))[:, None]
    unit = np.divide(wide, length, out=np.zeros_like(wide), where=length > 0)
    contrasted: np.ndarray = unit * (1 + 1 / len(unit)) - unit.mean(axis=0)
    return contrasted


def best(directions: np.ndarray, concepts: np.ndarray, top: int) -> tuple[np.ndarray, np.ndarray]:
    """The concepts that score most for each of m directions f64 [m, d]: numbers int64 [m, top], scores f64 [m, top].

    concepts: unit features f32 [c, d]; of fewer than `top` all are given. Equal scores (to 12 decimals): the lower
    number first. No row hangs on which others are asked for.
    """
    index, step = _index(concepts), max(1, _PAIRS // (min(top, len(concepts)) + _SPARE))
    parts = [_best(index, directions[start : start + step], concepts, top) for start in range(0, len(directions), step)]
    if not parts:
        return np.empty((0, top), np.int64), np.empty((0, top))
    return np.concatenate([found for found, _ in parts]), np.concatenate([score for _, score in parts])


def _best(index: Any, some: np.ndarray, concepts: np.ndarray, top: int) -> tuple[np.ndarray, np.ndarray]:
    found = index.search(some.astype(np.float32), min(top + _SPARE, len(concepts)))[1]
    near = concepts[found].astype(np.float64)  # [m, candidates, d]
    # einsum without BLAS: a sum that hangs neither on its neighbours nor on the number of threads
    scores = np.round(np.einsum("ncd,nd->nc", near, some), 12)
    order = np.lexsort((found, -scores))[:, :top]
    return np.take_along_axis(found, order, axis=1), np.take_along_axis(scores, order, axis=1)


def _index(concepts: np.ndarray) -> Any:
    import faiss

    index = faiss.IndexFlatIP(concepts.shape[1])
    index.add(np.ascontiguousarray(concepts, np.float32))
    return index
