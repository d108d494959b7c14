"""Clusters in a file: their centroids, and what they are of; and which of them a vector belongs to."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np

from clipkit.errors import ClipkitError
from clipkit.features import tensors as tensors_file

FORMAT: Final = 1
KIND: Final = "centroids"
PROBES: Final = 8  # groups of clusters that a vector is compared with, where clusters are in groups
_CANDIDATES: Final = 4  # nearest by f32, among which f64 decides
_DOUBT: Final = 1e-5  # more than two products of unit vectors in f32 are off
_DECIMALS: Final = 12
_AT_ONCE: Final = 4096  # pairs compared in f64 at once
_UNIT: Final = 1e-3  # how far from 1 the length of a spherical centroid may be; no mean of unit vectors is longer
_MAKE: Final = "make one with: clipkit cluster SOURCE --k K --save-centroids FILE"


@dataclass(frozen=True)
class Groups:
    """A coarse clustering of many centroids, so that a vector need not be compared with all.

    rows: f32 [g, d], the centroids of the groups. starts: int64 [g + 1]: the clusters of group j are starts[j] to
    starts[j + 1] - 1; none is without.
    """

    rows: np.ndarray
    starts: np.ndarray


@dataclass(frozen=True)
class Centroids:
    """rows: f32 [k, d]; of unit length if spherical. sizes: int64 [k], members when they were made.

    spherical: the distance is 1 - cosine; else Euclidean. model: whose features, as `str(identity)`. by: image or text.
    groups: None, or the groups that a vector looks for its cluster in: the 8 that are nearest to it.
    """

    rows: np.ndarray
    sizes: np.ndarray
    spherical: bool
    model: str
    by: str
    groups: Groups | None = None

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def digest(self) -> str:
        """8 hex digits that stand for the clusters."""
        digest = hashlib.blake2b(self.rows.astype("<f4").tobytes(), digest_size=4)
        if not self.spherical:
            digest.update(b"euclidean")  # a cluster of one member has the same centroid either way
        if self.groups:
            digest.update(self.groups.rows.astype("<f4").tobytes() + self.groups.starts.astype("<i8").tobytes())
        return digest.hexdigest()

    @cached_property
    def via(self) -> str:
        """Who made `cluster` of a record: it names the clusters and the model."""
        return f"cluster/{self.digest}/{self.model}"

    def nearest(self, rows: np.ndarray) -> np.ndarray:
        """The nearest cluster of each unit row f32 [n, d], int32 [n].

        What f32 cannot tell apart is compared in f64, row by row: no answer hangs on who else is asked for, or on the
        number of threads. Equal distances (to 12 decimals) go to the lower number.
        """
        rows = np.ascontiguousarray(rows, np.float32)
        if not len(rows):
            return np.empty(0, np.int32)
        probed = self._probed(rows)
        apart, found = self._search(rows, probed)
        near = (apart <= apart[:, :1] + _DOUBT) & (found >= 0)
        labels = found[:, 0].astype(np.int32)
        some = near.sum(axis=1)
        perhaps_more = (some == found.shape[1]) & (some < len(self._distinct))
        several = np.flatnonzero((some > 1) & ~perhaps_more)
        labels[several] = self._decide(rows[several], found[several], near[several])
        for row in np.flatnonzero((some > 1) & perhaps_more):
            labels[row] = self._among(rows[row], self._allowed(None if probed is None else probed[row]))
        return labels

    def assign(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """As `nearest`, and the distance to its centroid, f64 [n], to 12 decimals."""
        rows = np.ascontiguousarray(rows, np.float32)
        labels = self.nearest(rows)
        return labels, np.maximum(self._distance(rows, labels), 0) + 0.0  # no -0

    def save(self, path: str) -> None:
        """Write a safetensors file, under its name when it is whole."""
        said = {"format": str(FORMAT), "kind": KIND, "spherical": json.dumps(self.spherical)}
        said |= {"model": self.model, "by": self.by}
        tensors: dict[str, Any] = {"centroids": self.rows.astype(np.float32), "sizes": self.sizes.astype(np.int64)}
        if self.groups:
            tensors |= {"groups": self.groups.rows.astype(np.float32), "starts": self.groups.starts.astype(np.int64)}
        tensors_file.write(path, tensors, said)

    @classmethod
    def load(cls, path: str) -> Centroids:
        """Read what `save` wrote. Raises ClipkitError for anything else."""
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, "numpy") as file:
                said: dict[str, str] = file.metadata() or {}
                if said.get("kind") != KIND:
                    raise ClipkitError(f"{path} holds no centroids", _MAKE)
                if int(said["format"]) > FORMAT:
                    raise ClipkitError(
                        f"{path} was written by a newer clipkit (format {said['format']})", "upgrade clipkit"
                    )
                return cls._checked({name: file.get_tensor(name) for name in file.keys()}, said)  # noqa: SIM118
        except FileNotFoundError:
            hint = f"{_MAKE} (which is there once that run has ended: not yet in a pipe behind it)"
            raise ClipkitError(f"{path}: there is no such file", hint) from None
        except (SafetensorError, KeyError, ValueError, TypeError, OSError) as error:
            raise ClipkitError(f"{path} is damaged or no file of centroids: {error}", _MAKE) from None

    @classmethod
    def _checked(cls, tensors: Mapping[str, np.ndarray], said: Mapping[str, str]) -> Centroids:
        """Raises ValueError or KeyError where they are not what `save` would have written."""
        rows, sizes, spherical = tensors["centroids"], tensors["sizes"], said["spherical"] == "true"
        if said["spherical"] not in ("true", "false") or said["by"] not in ("image", "text"):
            raise ValueError("it does not say which distance it is for, or whose features it is of")
        _expect("centroids", rows, np.float32, 2)
        _expect("sizes", sizes, np.int64, 1)
        if not rows.size or len(sizes) != len(rows) or (sizes < 0).any():
            raise ValueError(f"{len(sizes)} sizes of {len(rows)} centroids")
        groups = Groups(tensors["groups"], tensors["starts"]) if "groups" in tensors else None
        if groups:
            _expect("groups", groups.rows, np.float32, 2)
            _expect("starts", groups.starts, np.int64, 1)
            ends = groups.starts[:1].tolist() + groups.starts[-1:].tolist()
            if ends != [0, len(rows)] or (np.diff(groups.starts) < 1).any():
                raise ValueError("its groups do not hold all clusters")
            if groups.rows.shape != (len(groups.starts) - 1, rows.shape[1]):
                raise ValueError("its groups are of another shape")
        for some in (rows, groups.rows) if groups else (rows,):
            lengths = np.sqrt(np.einsum("kd,kd->k", some, some, dtype=np.float64))
            if (lengths > 1 + _UNIT).any() or (spherical and (lengths < 1 - _UNIT).any()):
                raise ValueError(
                    "its centroids are not of unit length" if spherical else "they are no means of unit vectors"
                )
        return cls(rows, sizes, spherical, said["model"], said["by"], groups)

    def require(self, model: str, by: str, dim: int) -> None:
        """Raise ClipkitError unless they are of this model's features (`str(identity)`), and of images or texts.

        dim: of the model's features. A file may say one model and hold what cannot be of it.
        """
        if self.model.rpartition("@")[2] != model.rpartition("@")[2]:
            from clipkit.models.names import again

            raise ClipkitError(
                f"the centroids are of {self.by} features of {self.model}, these are of {by} features of {model}",
                f"use that model (--model {again(self.model.rpartition('@')[0])}), or cluster anew with this one",
            )
        if self.by != by:
            raise ClipkitError(f"the centroids are of {self.by} features, these are of {by}", f"use --by {self.by}")
        if self.rows.shape[1] != dim:
            raise ClipkitError(f"the centroids are of {self.rows.shape[1]} dimensions, and {model} has {dim}", _MAKE)

    def _search(self, rows: np.ndarray, probed: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        """The nearest few by f32: how far, in a measure that only orders, and which; -1 where there are no more."""
        index, count = self._index, min(_CANDIDATES, len(self._distinct))
        if probed is None:
            scores, found = index.search(rows, count)
            found = self._distinct[found]
        else:
            index.nprobe = probed.shape[1]
            scores, found = index.search_preassigned(rows, count, probed, np.zeros(probed.shape, np.float32))
        return (-scores if self.spherical else scores), found

    def _probed(self, rows: np.ndarray) -> np.ndarray | None:
        """The groups that each row looks in, int64 [n, 8 or all], ascending; None: there are no groups."""
        if self.groups is None:
            return None
        count = len(self.groups.rows)
        if count <= PROBES:
            return np.tile(np.arange(count), (len(rows), 1))
        scores, found = self._group_index.search(rows, PROBES + 1)
        probed: np.ndarray = found[:, :PROBES].astype(np.int64)
        for row in np.flatnonzero(np.abs(scores[:, PROBES] - scores[:, PROBES - 1]) <= _DOUBT):
            distance = _distances(np.broadcast_to(rows[row], self.groups.rows.shape), self.groups.rows, self.spherical)
            probed[row] = np.argsort(distance, kind="stable")[:PROBES]
        probed.sort(axis=1)
        return probed

    def _allowed(self, probed: np.ndarray | None) -> np.ndarray:
        """The clusters that a vector may belong to, ascending."""
        if self.groups is None or probed is None:
            return np.arange(len(self))
        starts = self.groups.starts
        return np.concatenate([np.arange(starts[group], starts[group + 1]) for group in probed])

    def _among(self, row: np.ndarray, allowed: np.ndarray) -> int:
        """The nearest of some clusters by f64."""
        distance = self._distance(np.broadcast_to(row, (len(allowed), len(row))), allowed)
        return int(allowed[distance.argmin()])

    def _decide(self, rows: np.ndarray, found: np.ndarray, near: np.ndarray) -> np.ndarray:
        """The nearest by f64 of the candidates [n, c] that are `near`."""
        row, candidate = np.nonzero(near)
        clusters = np.full(found.shape, len(self))
        clusters[row, candidate] = found[row, candidate]
        distance = np.full(found.shape, np.inf)
        distance[row, candidate] = self._distance(rows, clusters[row, candidate], row)
        tied = distance == distance.min(axis=1, keepdims=True)
        first: np.ndarray = np.where(tied, clusters, len(self)).min(axis=1)
        return first

    def _distance(self, rows: np.ndarray, clusters: np.ndarray, which: np.ndarray | None = None) -> np.ndarray:
        """The distance f64 [m] of rows (those that `which` names, else each) to one cluster each."""
        which = np.arange(len(rows)) if which is None else which
        out = np.empty(len(clusters))
        for start in range(0, len(clusters), _AT_ONCE):
            here = slice(start, start + _AT_ONCE)
            out[here] = _distances(rows[which[here]], self.rows[clusters[here]], self.spherical)
        return out

    @cached_property
    def _distinct(self) -> np.ndarray:
        """The clusters that are not equal to an earlier one of their group, ascending: only they can be nearest."""
        first: dict[tuple[int, bytes], int] = {}
        for number, (group, row) in enumerate(zip(self._group_of.tolist(), self.rows, strict=True)):
            first.setdefault((group, row.tobytes()), number)
        return np.array(list(first.values()))

    @cached_property
    def _group_of(self) -> np.ndarray:
        """The group of each cluster, int64 [k]; all are in one where there are no groups."""
        if self.groups is None:
            return np.zeros(len(self), np.int64)
        groups: np.ndarray = np.repeat(np.arange(len(self.groups.rows)), np.diff(self.groups.starts))
        return groups

    @cached_property
    def _index(self) -> Any:
        import faiss

        rows = np.ascontiguousarray(self.rows[self._distinct], np.float32)
        if self.groups is None:
            return _flat(rows, self.spherical)
        metric = faiss.METRIC_INNER_PRODUCT if self.spherical else faiss.METRIC_L2
        lists, numbers = np.ascontiguousarray(self._group_of[self._distinct]), self._distinct
        index = faiss.IndexIVFFlat(self._group_index, rows.shape[1], len(self.groups.rows), metric)
        index.is_trained = True
        index.add_core(len(rows), faiss.swig_ptr(rows), faiss.swig_ptr(numbers), faiss.swig_ptr(lists))
        return index

    @cached_property
    def _group_index(self) -> Any:
        assert self.groups is not None
        return _flat(np.ascontiguousarray(self.groups.rows, np.float32), self.spherical)


def _flat(rows: np.ndarray, spherical: bool) -> Any:
    import faiss

    index = (faiss.IndexFlatIP if spherical else faiss.IndexFlatL2)(rows.shape[1])
    index.add(rows)
    return index


def _distances(rows: np.ndarray, centroids: np.ndarray, spherical: bool) -> np.ndarray:
    """Of each row f32 [n, d] to the centroid beside it [n, d], f64 [n]; rounded, so that machines agree."""
    wide, near = rows.astype(np.float64, "C"), centroids.astype(np.float64, "C")
    if spherical:
        distance = 1 - np.einsum("nd,nd->n", wide, near)  # einsum alone: without BLAS
    else:
        near -= wide
        distance = np.sqrt(np.einsum("nd,nd->n", near, near))
    rounded: np.ndarray = np.round(distance, _DECIMALS)
    return rounded


def _expect(name: str, tensor: np.ndarray, dtype: type, dimensions: int) -> None:
    if tensor.dtype != dtype or tensor.ndim != dimensions:
        raise ValueError(f"{name} is {tensor.dtype} of {tensor.ndim} dimensions")
    if tensor.dtype == np.float32 and not np.isfinite(tensor).all():
        raise ValueError(f"{name} holds what is not finite")
