"""Soups whose coefficients are known beforehand: the uniform one, and sums of task vectors."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fractions import Fraction
from typing import Any

from clipkit.models.hub_folder import check_target
from clipkit.soups.card import said_of, save
from clipkit.soups.mixing import Terms, mix
from clipkit.soups.states import State, check


def uniform(states: Sequence[State], out: str) -> dict[str, Any]:
    """Write the mean of models' weights (the uniform soup of Wortsman et al., 2022); returns what was made, as JSON.

    The order of the models changes nothing: they are added in that of their digests. Raises as `save` and `mix` do.
    """
    check_target(out)
    check(states)
    part = Fraction(1, len(states))
    terms = gathered((part, state) for state in sorted(states, key=lambda state: state.weights))
    return save(out, terms[0][1], mix(terms), {"recipe": "uniform", "terms": said_of(terms)})


def task(base: State, added: Sequence[State], negated: Sequence[State], scale: float, out: str) -> dict[str, Any]:
    """Write base + scale * (sum of added task vectors - sum of negated ones); returns what was made, as JSON.

    A task vector is a tuned model's weights minus the base's (Ilharco et al., 2023). An analogy, "a is to b as c is to
    the result", is b and c added and a negated. Coefficients are added up exactly before anything is mixed, so what
    cancels leaves no trace: a base against itself, or a model added and negated, gives the base, bit for bit.
    """
    check_target(out)
    check([base, *added, *negated])
    factor = Fraction(scale)
    vectors = [*((factor, state) for state in added), *((-factor, state) for state in negated)]
    vectors.sort(key=lambda vector: vector[1].weights)
    rest = 1 - sum((coefficient for coefficient, _ in vectors), Fraction())
    terms = gathered([(rest, base), *vectors])
    said = {
        "recipe": "task",
        "scale": scale,
        "base": _named(base),
        "added": sorted(map(_named, added), key=lambda said: said["weights"]),
        "negated": sorted(map(_named, negated), key=lambda said: said["weights"]),
        "terms": said_of(terms),
    }
    return save(out, base, mix(terms), said)


def gathered(terms: Iterable[tuple[Fraction, State]]) -> Terms:
    """Terms with one coefficient for all that have the same weights, those with none left out; in their first order."""
    sums: dict[str, Fraction] = {}
    states: dict[str, State] = {}
    for coefficient, state in terms:
        sums[state.weights] = sums.get(state.weights, Fraction()) + coefficient
        states.setdefault(state.weights, state)
    return [(float(coefficient), states[weights]) for weights, coefficient in sums.items() if coefficient]


def _named(state: State) -> dict[str, str]:
    return {"model": state.name, "weights": state.weights}
