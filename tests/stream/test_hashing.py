"""Random choices by hash: the documented formula, uniform, apart for each purpose; names of values that are equal."""

from __future__ import annotations

import hashlib
import json
import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from clipkit.stream.hashing import name_of, share, ticket, value_name
from clipkit.stream.record import Record


def test_the_formula_is_the_documented_one() -> None:
    drawn = hashlib.blake2b("split\x007\x00fotos/é.jpg".encode(), digest_size=16).digest()
    assert ticket("fotos/é.jpg", 7, "split") == drawn
    assert share("fotos/é.jpg", 7, "split") == int(drawn.hex(), 16) // 2 ** (128 - 53) / 2**53
    assert share("a", 0, "sample") == 0.8509668128046163  # a change of this moves everyone's test set


def test_shares_are_uniform_and_independent_of_purpose_and_seed() -> None:
    names = [f"r{i}" for i in range(4000)]
    split = [share(name, 0, "split") for name in names]
    assert min(split) >= 0 and max(split) < 1
    for others in (split, [share(n, 0, "sample") for n in names], [share(n, 1, "split") for n in names]):
        for low in range(10):
            assert abs(sum(low <= 10 * other < low + 1 for other in others) - 400) < 100  # over 5 sigma
        if others is not split:
            both = sum(a < 0.5 and b < 0.5 for a, b in zip(split, others, strict=True))
            assert abs(both - 1000) < 140


def test_a_record_without_an_id_hangs_on_its_line() -> None:
    a, b, again = (Record.parse(line) for line in (b'{"x":1}', b'{"x":2}', b'{"x":1}'))
    assert name_of(a) == name_of(again) != name_of(b)
    assert name_of(Record({"id": "n"})) == "n"
    assert name_of(Record({"image": "i"}, key="k")) == "k"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=3),
    max_leaves=6,
)


def plain(value: object) -> object:
    """A value in a form that Python compares as we do: no bool equals a number, texts in NFC."""
    if isinstance(value, bool):
        return ("bool", value)
    if isinstance(value, str):
        return unicodedata.normalize("NFC", value)
    if isinstance(value, list):
        return [plain(inner) for inner in value]
    if isinstance(value, dict):
        return {plain(name): plain(inner) for name, inner in value.items()}
    return value


@given(JSON, JSON)
def test_names_are_equal_just_where_values_are(a: object, b: object) -> None:
    assert (value_name(a) == value_name(b)) == (plain(a) == plain(b))
    json.loads(value_name(a))  # they are JSON, so can be shown


def test_two_spellings_of_one_value() -> None:
    assert value_name("é") == value_name("e\u0301")
    assert value_name(1) == value_name(1.0) != value_name("1")
    assert value_name({"a": 1, "b": [2.0]}) == value_name({"b": [2], "a": 1.0})
    assert value_name(True) != value_name(1)
