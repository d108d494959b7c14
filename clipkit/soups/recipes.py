"""Soups whose coefficients are known beforehand: the mean, a point between two models, and sums of task vectors."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from clipkit.models.hub_folder import check_target
from clipkit.soups.shown import Voice
from clipkit.soups.states import State, check, state
from clipkit.stream.signals import stopping

if TYPE_CHECKING:
    import torch

    from clipkit.soups.mixing import Terms


def uniform(models: Sequence[str], out: str, voice: Voice) -> dict[str, Any]:
    """Write the mean of models' weights (the uniform soup of Wortsman et al., 2022); returns what was made, as JSON.

    models: names as `state` takes them. Raises as `state`, `mix` and `save` do.
    """
    check_target(out)
    with _working(voice, out):
        states = _states(models, voice)
        return _write(out, states[0], uniform_terms(states), {"recipe": "uniform"}, voice)


def wise(base: str, tuned: str, alpha: float, out: str, voice: Voice) -> dict[str, Any]:
    """Write the model at one alpha between two (WiSE-FT), and measure nothing; returns what was made, as JSON.

    alpha: 0 to 1. Raises as `uniform` does.
    """
    check_target(out)
    with _working(voice, out):
        states = _states([base, tuned], voice)
        return _write(out, states[0], wise_terms(states, alpha), {"recipe": "wise", "alpha": alpha}, voice)


def task(base: str, add: Sequence[str], negate: Sequence[str], scale: float, out: str, voice: Voice) -> dict[str, Any]:
    """Write a model and task vectors (Ilharco et al., 2023), as `task_terms` has it; returns what was made, as JSON.

    scale: finite. Raises as `uniform` does.
    """
    check_target(out)
    with _working(voice, out):
        first, *others = _states([base, *add, *negate], voice)
        added, negated = others[: len(add)], others[len(add) :]
        terms = task_terms(first, added, negated, scale)
        said = {"recipe": "task", "scale": scale, "base": _named([first])[0], "add": _named(added)}
        return _write(out, first, terms, said | {"negate": _named(negated)}, voice)


def uniform_terms(states: Sequence[State]) -> Terms:
    """The mean. The order of the states changes nothing, bit for bit: they are added in that of their digests."""
    part = Fraction(1, len(states))
    return gathered((part, one) for one in _in_order(states))


def wise_terms(models: Sequence[State], alpha: float) -> Terms:
    """(1 - alpha) BASE + alpha TUNED; one of them alone, bit for bit, at 0 and 1. models: these two."""
    base, tuned = models
    part = Fraction(alpha)
    return gathered([(1 - part, base), (part, tuned)])


def task_terms(base: State, added: Sequence[State], negated: Sequence[State], scale: float) -> Terms:
    """base + scale * (sum of the task vectors added - sum of those negated); a vector is a model minus the base.

    An analogy, a is to b as c is to the result, is b and c added and a negated: of its four bases two cancel, and that
    leaves base + scale * ((c - base) + (b - a)), as in the paper.
    """
    factor = Fraction(scale)
    vectors = [*((factor, one) for one in _in_order(added)), *((-factor, one) for one in _in_order(negated))]
    rest = 1 - factor * (len(added) - len(negated))
    return gathered([(rest, base), *vectors])


def gathered(terms: Iterable[tuple[Fraction, State]]) -> Terms:
    """Terms with one coefficient for all that have the same weights, those with none left out; in their first order.

    Coefficients are added up exactly, so what cancels leaves no trace: a task vector of a model against itself, or one
    added and negated, gives the base bit for bit.
    """
    sums: dict[str, Fraction] = {}
    states: dict[str, State] = {}
    for coefficient, one in terms:
        sums[one.weights] = sums.get(one.weights, Fraction()) + coefficient
        states.setdefault(one.weights, one)
    return [(float(coefficient), states[weights]) for weights, coefficient in sums.items() if coefficient]


@contextmanager
def _working(voice: Voice, out: str) -> Iterator[None]:
    """While models are read and mixed: whoever looks sees how far it is, and a stop leaves nothing."""
    with stopping(voice.tell, out), voice.working():
        yield


def _write(out: str, like: State, terms: Terms, said: Mapping[str, Any], voice: Voice) -> dict[str, Any]:
    from clipkit.soups.card import said_of, save
    from clipkit.soups.mixing import mix

    return save(out, like, _counted(mix(terms), like, voice), {**said, "terms": said_of(terms)})


def _counted(
    mixture: Iterable[tuple[str, torch.Tensor]], like: State, voice: Voice
) -> Iterator[tuple[str, torch.Tensor]]:
    """The same, while how far it is can be seen."""
    total, done = sum(map(math.prod, like.shapes.values())), 0
    voice.doing = "mixing"
    for name, tensor in mixture:
        done += tensor.numel()
        voice.doing = f"mixing, {done / total:.0%}"
        yield name, tensor
    voice.doing = "writing"


def _states(models: Sequence[str], voice: Voice) -> list[State]:
    """All of them, one a name, read for their digests. Raises ClipkitError unless they can be mixed."""
    found: dict[str, State] = {}
    for name in models:
        found[name] = found.get(name) or state(name)
    some = list(found.values())
    check(some)
    for notice in dict.fromkeys(notice for one in some for notice in one.notices):
        voice.tell(notice)
    for number, one in enumerate(some, start=1):
        voice.doing = f"reading {one.name}, {number:,} of {len(some):,}"
        _ = one.weights
    return [found[name] for name in models]


def _in_order(states: Iterable[State]) -> list[State]:
    return sorted(states, key=lambda one: one.weights)


def _named(states: Iterable[State]) -> list[dict[str, str]]:
    return [{"model": one.name, "weights": one.weights} for one in _in_order(states)]
