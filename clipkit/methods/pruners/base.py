"""A pruner: how many records of each cluster stay, and which."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Final

import numpy as np

from clipkit.errors import UsageError

if TYPE_CHECKING:
    from clipkit.features.centroids import Centroids

_LEAST_MEMBERS: Final = 39  # records a cluster, on average: fewer say little of where its centre is (faiss warns)


@dataclass(frozen=True)
class Pool:
    """What a pruner knows of n records in k clusters. All that it decides is a function of this.

    cluster: int32 [n], from 0 to k - 1. distance: f64 [n], to the cluster's centroid. ticket: uint64 [n], a hash of
    each record's id and the seed: the order where nothing else decides. score: f64 [n], NaN where there is none.
    k: clusters, some of which may be empty. hits: int64 [k], reference items that are nearest to each cluster; None
    without a reference. centroids: None where no features were looked at.
    """

    cluster: np.ndarray
    distance: np.ndarray
    ticket: np.ndarray
    score: np.ndarray
    k: int
    hits: np.ndarray | None = None
    centroids: Centroids | None = None

    def __len__(self) -> int:
        return len(self.cluster)

    @cached_property
    def sizes(self) -> np.ndarray:
        """Records of each cluster, int64 [k]."""
        return np.bincount(self.cluster, minlength=self.k)

    def among(self, chosen: np.ndarray) -> np.ndarray:
        """How many of the chosen (bool [n]) are of each cluster, int64 [k]."""
        return np.bincount(self.cluster[chosen], minlength=self.k)

    def order(self, key: np.ndarray) -> np.ndarray:
        """All records by a key (f64 [n], lowest first), int64 [n]; ties by ticket."""
        return np.lexsort((self.ticket, key))

    def places(self, key: np.ndarray) -> np.ndarray:
        """The place of each record in its own cluster by a key (f64 [n]), int64 [n] from 0; ties by ticket."""
        order = np.lexsort((self.ticket, key, self.cluster))
        starts = np.cumsum(self.sizes) - self.sizes
        places = np.empty(len(self), np.int64)
        places[order] = np.arange(len(self)) - np.repeat(starts, self.sizes)
        return places


@dataclass(frozen=True, slots=True)
class Reason:
    """Why some records go. of: bool [n], whom it is about. value, limit: [n], what is said of each."""

    name: str
    of: np.ndarray
    value: np.ndarray
    limit: np.ndarray


class Pruner:
    """One way to choose a part of a set.

    options: JSON, what the user said, None for what was not said; and `sized`, whether a size will be given.
    Construction is cheap; it checks them and raises UsageError.

    needs_clusters: it looks at features; else all records are one cluster, at distance 0. has_rule: without a size it
    keeps what its own rule says (`allocate` with None). takes: the options that it knows.
    """

    name: ClassVar[str] = ""
    needs_clusters: ClassVar[bool] = True
    has_rule: ClassVar[bool] = False
    takes: ClassVar[tuple[str, ...]] = ()
    most_clusters: ClassVar[int] = 1000
    cluster_members: ClassVar[int] = _LEAST_MEMBERS  # on average, at least

    def __init__(self, options: Mapping[str, Any]) -> None:
        self.options = options
        self.sized = bool(options.get("sized"))
        for option, value in options.items():
            if option != "sized" and value is not None and option not in self.takes:
                known = ", ".join(map(flag, self.takes))
                hint = f"it takes {known}" if known else "it takes none of its own"
                raise UsageError(f"{flag(option)} is no option of --method {self.name}", hint)
        if not self.sized and not self.has_rule:
            raise UsageError("how many stay? say --keep or --keep-fraction", "for example: --keep-fraction 0.5")

    def default_k(self, n: int) -> int:
        """How many clusters n records are put into where nobody said: as published, or fewer for a small set."""
        return max(min(self.most_clusters, n // self.cluster_members), 1)

    @property
    def reasons(self) -> Sequence[str]:
        """The names of all reasons for which it drops."""
        return (self.name,)

    def most(self, pool: Pool) -> int:
        """How many it can keep."""
        return len(pool)

    def allocate(self, pool: Pool, size: int | None) -> np.ndarray:
        """How many records of each cluster stay, int64 [k].

        size: their sum, at most `most`; None: what its own rule says. Raises UsageError where options and pool do not
        go together.
        """
        raise NotImplementedError

    def choose(self, pool: Pool, quota: np.ndarray) -> np.ndarray:
        """Which records stay, bool [n]: `quota` (int64 [k]) of each cluster."""
        kept: np.ndarray = self.places(pool) < quota[pool.cluster]
        return kept

    def places(self, pool: Pool) -> np.ndarray:
        """The place of each record among those of its cluster, int64 [n] from 0: the first ones stay. By ticket."""
        return pool.places(np.zeros(len(pool)))

    def why(self, pool: Pool, quota: np.ndarray) -> list[Reason]:
        """Why a record goes, if it does: the first reason that is about it.

        Here its place in its cluster, from 1, and how many of that cluster stay.
        """
        return [Reason(self.name, np.ones(len(pool), bool), self.places(pool) + 1, quota[pool.cluster])]

    def columns(self, pool: Pool) -> dict[str, np.ndarray]:
        """What the plan says of each cluster besides how many stay: [k] each; NaN where there is nothing to say."""
        return {}

    def facts(self, pool: Pool, size: int | None) -> dict[str, Any]:
        """What a report says of how it was decided, as JSON."""
        return {}


def flag(option: str) -> str:
    """An option as it is typed."""
    return "--" + option.replace("_", "-")


def part(option: str, value: float) -> float:
    """A part of the records. Raises UsageError unless it is above 0 and at most 1."""
    if not 0 < value <= 1:
        raise UsageError(f"{flag(option)} is above 0 and at most 1, not {value:g}", "0.3 is 30 %")
    return value
