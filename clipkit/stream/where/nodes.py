"""What a condition is once it is read: a small tree, checked for what can be known before there are records."""

from __future__ import annotations

import re
from collections.abc import Iterator
from enum import Enum
from typing import Any

import msgspec


class Kind(Enum):
    """What a value is; the name as messages say it. ANY: known only when there is a record."""

    NUMBER = "a number"
    STRING = "a string"
    BOOLEAN = "true or false"
    LIST = "a list"
    OBJECT = "an object"
    ANY = "anything"
    CONDITION = "a condition"  # true, false or unknown: what `and`, `or` and `not` join


def kind_of(value: Any) -> Kind:
    """The kind of a JSON value that is not null."""
    match value:
        case bool():
            return Kind.BOOLEAN
        case int() | float():
            return Kind.NUMBER
        case str():
            return Kind.STRING
        case list() | tuple():
            return Kind.LIST
        case _:
            return Kind.OBJECT


class Node(msgspec.Struct, frozen=True):
    """start, end: where it stands in the text."""

    start: int
    end: int

    @property
    def parts(self) -> tuple[Node, ...]:
        return ()

    @property
    def kind(self) -> Kind:
        return Kind.ANY


class Literal(Node, frozen=True):
    """A number, a string, true, false, or a tuple of such."""

    value: Any

    @property
    def kind(self) -> Kind:
        return kind_of(self.value)


class Field(Node, frozen=True):
    """A field by its dotted name."""

    name: str


class Quantile(Node, frozen=True):
    """q(p): a number that all records together decide. field: whose values."""

    p: float
    field: str

    @property
    def kind(self) -> Kind:
        return Kind.NUMBER


class Arithmetic(Node, frozen=True):
    """op: + - * / %, or `neg` with one part."""

    op: str
    operands: tuple[Node, ...]

    @property
    def parts(self) -> tuple[Node, ...]:
        return self.operands

    @property
    def kind(self) -> Kind:
        return Kind.NUMBER


class Call(Node, frozen=True):
    """A function that gives a value: len, words, lower, min, max, abs; or a condition: entity."""

    name: str
    operands: tuple[Node, ...]

    @property
    def parts(self) -> tuple[Node, ...]:
        return self.operands

    @property
    def kind(self) -> Kind:
        return FUNCTIONS[self.name].gives


class Condition(Node, frozen=True):
    @property
    def kind(self) -> Kind:
        return Kind.CONDITION


class Compare(Condition, frozen=True):
    """op: < <= > >= == !="""

    op: str
    left: Node
    right: Node

    @property
    def parts(self) -> tuple[Node, ...]:
        return self.left, self.right


class Contains(Condition, frozen=True):
    """item in container."""

    item: Node
    container: Node

    @property
    def parts(self) -> tuple[Node, ...]:
        return self.item, self.container


class Match(Condition, frozen=True):
    """text ~ pattern."""

    text: Node
    pattern: re.Pattern[str]

    @property
    def parts(self) -> tuple[Node, ...]:
        return (self.text,)


class Missing(Condition, frozen=True):
    """missing(field): never unknown itself."""

    field: Field


class Logic(Condition, frozen=True):
    """op: `and`, `or`, or `not` with one part. Its parts are conditions, or fields that hold true or false."""

    op: str
    operands: tuple[Node, ...]

    @property
    def parts(self) -> tuple[Node, ...]:
        return self.operands


class Function(msgspec.Struct, frozen=True):
    """takes: the kind of each argument. least, most: how many of them."""

    takes: Kind
    gives: Kind
    least: int = 1
    most: int = 1


FUNCTIONS = {
    "len": Function(Kind.ANY, Kind.NUMBER),
    "words": Function(Kind.STRING, Kind.NUMBER),
    "lower": Function(Kind.STRING, Kind.STRING),
    "min": Function(Kind.NUMBER, Kind.NUMBER, 2, 100),
    "max": Function(Kind.NUMBER, Kind.NUMBER, 2, 100),
    "abs": Function(Kind.NUMBER, Kind.NUMBER),
    "entity": Function(Kind.STRING, Kind.CONDITION),
}


def walk(node: Node) -> Iterator[Node]:
    """A node and all below it; fields that are only asked whether they are missing are not among them."""
    yield node
    for part in node.parts:
        yield from walk(part)
