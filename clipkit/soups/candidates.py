"""Mixtures as encoders, one after the other: what is measured of them is kept, and none is written."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch

from clipkit.models.load import load
from clipkit.models.open_clip import OpenClipEncoder
from clipkit.soups.mixing import Terms, mix
from clipkit.soups.states import State, check


class Candidates:
    """Makes encoders of mixtures of some states, which all can be mixed; two models are in memory, however many.

    device: as `load` takes it. Raises ClipkitError where the states cannot be mixed.
    """

    def __init__(self, states: Sequence[State], device: str = "auto") -> None:
        check(states)
        self.states = tuple(states)
        self._first = cast(OpenClipEncoder, load(states[0].model, device=device))

    def encoder(self, terms: Terms, name: str) -> OpenClipEncoder:
        """The mixture, called so; it is the caller's to close. A model mixed alone is that model, bit for bit."""
        model = self._first.module()
        mine = model.state_dict()
        with torch.no_grad():
            for tensor, mixed in mix(terms):
                mine[tensor].copy_(mixed)
        return self._first.rebuilt(model, name)

    def close(self) -> None:
        self._first.close()
