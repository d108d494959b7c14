"""Clusters in a file: their centroids, and what they are of."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from clipkit.errors import ClipkitError

FORMAT: Final = 1
KIND: Final = "centroids"
_CANDIDATES: Final = 8  # nearest by f32, among which f64 decides


@dataclass(frozen=True)
class Centroids:
    """rows: f32 [k, d]; of unit length if spherical. sizes: int64 [k], members when they were made.

    spherical: the distance is 1 - cosine; else Euclidean. model: whose features, as `str(identity)`. by: image or text.
    """

    rows: np.ndarray
    sizes: np.ndarray
    spherical: bool
    model: str
    by: str

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def digest(self) -> str:
        """8 hex digits that stand for the clusters."""
        return hashlib.blake2b(self.rows.astype("<f4").tobytes(), digest_size=4).hexdigest()

    @property
    def via(self) -> str:
        """Who made `cluster` of a record: it names the clusters and the model."""
        return f"cluster/{self.digest}/{self.model}"

    def assign(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The nearest cluster of each unit row f32 [n, d], int32 [n], and the distance to its centroid, f64 [n].

        The candidates that f32 finds are compared again in f64, row by row: no answer hangs on who else is asked for.
        Ties go to the lower number.
        """
        found = np.sort(self._index().search(np.ascontiguousarray(rows, np.float32), min(_CANDIDATES, len(self)))[1])
        near = self.rows[found].astype(np.float64)  # [n, candidates, d]
        wide = rows.astype(np.float64)
        if self.spherical:
            distance = 1 - np.einsum("ncd,nd->nc", near, wide)
        else:
            apart = near - wide[:, None]
            distance = np.sqrt(np.einsum("ncd,ncd->nc", apart, apart))
        distance = np.round(distance, 12)
        best = distance.argmin(axis=1)
        each = np.arange(len(rows))
        return found[each, best].astype(np.int32), distance[each, best]

    def save(self, path: str) -> None:
        """Write a safetensors file, under its name when it is whole."""
        from safetensors.numpy import save_file

        said = {"format": str(FORMAT), "kind": KIND, "spherical": json.dumps(self.spherical)}
        said |= {"model": self.model, "by": self.by}
        part = Path(f"{path}.part")
        save_file({"centroids": self.rows.astype(np.float32), "sizes": self.sizes.astype(np.int64)}, part, said)
        os.replace(part, path)

    @classmethod
    def load(cls, path: str) -> Centroids:
        """Read what `save` wrote. Raises ClipkitError for anything else."""
        from safetensors import SafetensorError, safe_open

        hint = "make one with: clipkit cluster SOURCE --k K --save-centroids FILE"
        try:
            with safe_open(path, "numpy") as file:
                said: dict[str, Any] = file.metadata() or {}
                if said.get("kind") != KIND:
                    raise ClipkitError(f"{path} holds no centroids", hint)
                if int(said["format"]) > FORMAT:
                    raise ClipkitError(
                        f"{path} was written by a newer clipkit (format {said['format']})", "upgrade clipkit"
                    )
                rows, sizes = file.get_tensor("centroids"), file.get_tensor("sizes")
                return cls(rows, sizes, said["spherical"] == "true", said["model"], said["by"])
        except FileNotFoundError:
            raise ClipkitError(f"{path}: there is no such file", hint) from None
        except (SafetensorError, KeyError, ValueError, OSError) as error:
            raise ClipkitError(f"{path} is damaged or no file of centroids: {error}", hint) from None

    def require(self, model: str, by: str) -> None:
        """Raise ClipkitError unless they are of this model's features (`str(identity)`), and of images or texts."""
        if (self.model, self.by) != (model, by):
            raise ClipkitError(
                f"the centroids are of {self.by} features of {self.model}, these are of {by} features of {model}",
                "cluster with the model that is used here",
            )

    def _index(self) -> Any:
        import faiss

        if "index" not in self.__dict__:
            flat = faiss.IndexFlatIP if self.spherical else faiss.IndexFlatL2
            index = flat(self.rows.shape[1])
            index.add(np.ascontiguousarray(self.rows, np.float32))
            self.__dict__["index"] = index
        return self.__dict__["index"]
