"""Soups whose coefficients are known beforehand: the uniform one, and sums of task vectors."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from clipkit.models.hub_folder import check_target
from clipkit.soups.states import State, check, state
from clipkit.stream.signals import Signals

if TYPE_CHECKING:
    from clipkit.soups.mixing import Terms

Tell = Callable[[str], None]


def uniform(models: Sequence[str], out: str, tell: Tell) -> dict[str, Any]:
    """Write the mean of models' weights (the uniform soup of Wortsman et al., 2022); returns what was made, as JSON.

    models: names as `state` takes them. tell: says a notice. Raises as `state`, `mix` and `save` do.
    """
    check_target(out)
    terms = uniform_terms(_states(models, tell))
    return _write(out, terms[0][1], terms, {"recipe": "uniform"})


def task(base: str, add: Sequence[str], negate: Sequence[str], scale: float, out: str, tell: Tell) -> dict[str, Any]:
    """Write a model and task vectors (Ilharco et al., 2023), as `task_terms` has it; returns what was made, as JSON.

    scale: finite. Raises as `uniform` does.
    """
    check_target(out)
    first, *others = _states([base, *add, *negate], tell)
    added, negated = others[: len(add)], others[len(add) :]
    terms = task_terms(first, added, negated, scale)
    said = {"recipe": "task", "scale": scale, "base": _named([first])[0], "add": _named(added)}
    return _write(out, first, terms, said | {"negate": _named(negated)})


def uniform_terms(states: Sequence[State]) -> Terms:
    """The mean. The order of the states changes nothing, bit for bit: they are added in that of their digests."""
    part = Fraction(1, len(states))
    return gathered((part, one) for one in _in_order(states))


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


def _write(out: str, like: State, terms: Terms, said: Mapping[str, Any]) -> dict[str, Any]:
    from clipkit.soups.card import said_of, save
    from clipkit.soups.mixing import mix

    with Signals():  # a stop leaves nothing
        return save(out, like, mix(terms), {**said, "terms": said_of(terms)})


def _states(models: Sequence[str], tell: Tell) -> list[State]:
    """All of them, one a name, and what the user should hear. Raises ClipkitError unless they can be mixed."""
    found = {name: state(name) for name in dict.fromkeys(models)}
    check(list(found.values()))
    for notice in dict.fromkeys(notice for one in found.values() for notice in one.notices):
        tell(notice)
    return [found[name] for name in models]


def _in_order(states: Iterable[State]) -> list[State]:
    return sorted(states, key=lambda one: one.weights)


def _named(states: Iterable[State]) -> list[dict[str, str]]:
    return [{"model": one.name, "weights": one.weights} for one in _in_order(states)]
