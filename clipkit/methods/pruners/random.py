"""As many records at random: what every other method must beat."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from clipkit.methods.pruners.base import Pool, Pruner


class Random(Pruner):
    """Keeps those whose tickets come first, so what a smaller size keeps, a larger one of the same seed keeps too."""

    name: ClassVar[str] = "random"
    needs_clusters: ClassVar[bool] = False

    def allocate(self, pool: Pool, size: int | None) -> np.ndarray:
        assert size is not None and pool.k == 1
        return np.array([size])
