"""What a condition is once it is read: a small tree, checked for what can be known before there are records."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Any


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


@dataclass(frozen=True, slots=True)
class Node:
    """start, end: where it stands in the text."""

    start: int
    end: int

    @property
    def parts(self) -> tuple[Node, ...]:
        return ()

    @property
    def kind(self) -> Kind:
        return Kind.ANY


@dataclass(frozen=True, slots=True)
class Literal(Node):
    """A number, a string, true, false, or a tuple of such."""

    value: Any

    @property
    def kind(self) -> Kind:
        return kind_of(self.value)


@dataclass(frozen=True, slots=True)
class Field(Node):
    """A field by its dotted name."""

    name: str


@dataclass(frozen=True, slots=True)
class Quantile(Node):
    """q(p): a number that all records together decide. field: whose values."""

    p: float
    field: str

    @property
    def kind(self) -> Kind:
        return Kind.NUMBER


@dataclass(frozen=True, slots=True)
class Arithmetic(Node):
    """op: + - * / %, or `neg` with one part."""

    op: str
    operands: tuple[Node, ...]

    @property
    def parts(self) -> tuple[Node, ...]:
        return self.operands

    @property
    def kind(self) -> Kind:
        return Kind.NUMBER


@dataclass(frozen=True, slots=True)
class Call(Node):
    """A function that gives a value: len, words, lower, min, max, abs; or a condition: entity."""

    name: str
    operands: tuple[Node, ...]

    @property
    def parts(self) -> tuple[Node, ...]:
        return self.operands

    @property
    def kind(self) -> Kind:
        return FUNCTIONS[self.name].gives


@dataclass(frozen=True, slots=True)
class Condition(Node):
    @property
    def kind(self) -> Kind:
        return Kind.CONDITION


@dataclass(frozen=True, slots=True)
class Compare(Condition):
    """op: < <= > >= == !="""

    op: str
    left: Node
    right: Node

    @property
    def parts(self) -> tuple[Node, ...]:
        return self.left, self.right


@dataclass(frozen=True, slots=True)
class Contains(Condition):
    """item in container."""

    item: Node
    container: Node

    @property
    def parts(self) -> tuple[Node, ...]:
        return self.item, self.container


@dataclass(frozen=True, slots=True)
class Match(Condition):
    """text ~ pattern."""

    text: Node
    pattern: re.Pattern[str]

    @property
    def parts(self) -> tuple[Node, ...]:
        return (self.text,)


@dataclass(frozen=True, slots=True)
class Missing(Condition):
    """missing(field): never unknown itself."""

    field: Field


@dataclass(frozen=True, slots=True)
class Logic(Condition):
    """op: `and`, `or`, or `not` with one part. Its parts are conditions, or fields that hold true or false."""

    op: str
    operands: tuple[Node, ...]

    @property
    def parts(self) -> tuple[Node, ...]:
        return self.operands


@dataclass(frozen=True, slots=True)
class Function:
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
