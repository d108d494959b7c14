"""What an adapter that is not linear writes its formula down in, so that it can ship without its method."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from clipkit.methods.adapters.data import Space


class Network(Protocol):
    """Steps of a network. Each gives the name of what it makes: f64 [n, width], for any n images."""

    def features(self, space: Space) -> str:
        """The unit features of the images, [n, d]."""

    def zero_shot(self) -> str:
        """The zero-shot logits of the adapter's task, [n, C]."""

    def product(self, rows: str, weights: np.ndarray) -> str:
        """rows [n, d] times weights [c, d]: [n, c]. Weights are held in f32."""

    def add(self, rows: str, other: str | np.ndarray | float) -> str:
        """The sum; of rows, or of a vector or number and each row."""

    def times(self, rows: str, number: float) -> str:
        """Each value times a number."""

    def at_most(self, rows: str, number: float) -> str:
        """Each value, or the number where that is less."""

    def above_zero(self, rows: str) -> str:
        """Each value, or 0 where that is more."""

    def exp(self, rows: str) -> str:
        """e to the power of each value."""

    def unit(self, rows: str) -> str:
        """Each row divided by its length; one of zeros stays."""
