"""The weights that a soup is made of: found by a name, read one tensor at a time, and held against each other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from clipkit.errors import ClipkitError, UsageError
from clipkit.models.base import Identity
from clipkit.models.checkpoint import Shapes, some
from clipkit.models.identity import weights_digest
from clipkit.models.names import MANIFEST, parse

if TYPE_CHECKING:
    from clipkit.models.outline import Outline
    from clipkit.models.weights_file import OpenWeights

_COMPARED: Final = ("setting", "activation", "preprocessing", "tensor")
_MIXED: Final = "an open_clip model: ARCH:TAG, ARCH:path, hf-hub:ORG/NAME, a model's folder or a run of clipkit train"


@dataclass(frozen=True)
class State:
    """A model of open_clip whose weights are in a file, unread. model: as `--model` takes it.

    Two states of one architecture have the same names and shapes, those of the architecture.
    """

    model: str
    outline: Outline

    @property
    def name(self) -> str:
        """What it is called, without the folders it lies in."""
        return self.outline.identity.name

    @property
    def shapes(self) -> Shapes:
        return self.outline.shapes

    @property
    def notices(self) -> tuple[str, ...]:
        return self.outline.notices

    def open(self) -> OpenWeights:
        """Its tensors for the length of a `with`: name -> tensor on the CPU, floats as f32."""
        return self.outline.file.open()

    @cached_property
    def weights(self) -> str:
        """sha256 of the weights, the same as the loaded model's; they are read for it, once."""
        with self.open() as tensors:
            return weights_digest(tensors)

    @property
    def identity(self) -> Identity:
        """The loaded model's."""
        return replace(self.outline.identity, weights=self.weights)


def state(given: str) -> State:
    """Find a model by what a user gives: what `--model` takes; a folder may do without its `/`.

    Raises UsageError for what is no model or has no weights to be mixed (`lite`, an exported folder, an adapter),
    ClipkitError for weights that cannot be had, read, or that don't fit their architecture.
    """
    model = f"./{given}" if "/" not in given and Path(given).is_dir() else given
    name = parse(model)
    if name.kind == "lite":
        raise UsageError("lite has no weights that can be mixed", f"expected {_MIXED}")
    if name.kind == "exported":
        raise UsageError(
            f"{given} is an exported model ({MANIFEST}): it holds networks, not weights that can be mixed",
            "name the model that it was exported from",
        )
    from clipkit.models.outline import outline  # loads torch: what is wrong with a name is said before

    return State(model, outline(name))


def check(states: Sequence[State]) -> None:
    """Raise ClipkitError unless the states can be mixed: one architecture, activation, preprocessing, the same tensors.

    The message names the first that differs from the first of all, and where.
    """
    for other in states[1:]:
        if said := _differs(states[0], other):
            raise ClipkitError(
                f"{states[0].model} and {other.model} cannot be mixed: {said}",
                "weights add up only among models of one architecture that see the same pixels",
            )


def _differs(one: State, other: State) -> str:
    for what, first, second in zip(_COMPARED, _compared(one), _compared(other), strict=True):
        if found := list(_unequal(first, second)):
            return f"{what} {some(found)}"
    return ""


def _compared(state: State) -> tuple[Mapping[str, Any], ...]:
    identity = state.outline.identity
    return state.outline.architecture, {"": identity.activation}, vars(identity.preprocess), state.shapes


def _unequal(one: Mapping[str, Any], other: Mapping[str, Any]) -> Iterator[str]:
    for name in dict.fromkeys((*one, *other)):
        if one.get(name) != other.get(name):
            yield f"{name} is {_said(one, name)} and {_said(other, name)}".strip()


def _said(values: Mapping[str, Any], name: str) -> str:
    return str(list(values[name]) if isinstance(values[name], tuple) else values[name]) if name in values else "absent"
