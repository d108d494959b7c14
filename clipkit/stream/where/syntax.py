"""Reading a condition: text to tokens to a tree, with errors that point."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator
from typing import NoReturn

import msgspec

from clipkit.errors import UsageError
from clipkit.stream.where.nodes import (
    FUNCTIONS,
    Arithmetic,
    Call,
    Compare,
    Contains,
    Field,
    Kind,
    Literal,
    Logic,
    Match,
    Missing,
    Node,
    Quantile,
    walk,
)
from clipkit.stream.where.patterns import Refused, compile_pattern
from clipkit.stream.where.tokens import Token, WhereError, tokens, unquote

_MAX_TEXT = 20_000  # characters of a condition
_MAX_DEPTH = 30  # of parentheses, functions and `not`, one in the other
_MAX_ARITHMETIC = 60  # operators of one condition
_COMPARISONS = ("<", "<=", ">", ">=", "==", "!=")
_INSTEAD = {
    "=": "== compares",
    "=>": "write >=",
    "=<": "write <=",
    "&&": "write and",
    "||": "write or",
    "!": "write not",
    "**": "there are no powers: multiply",
}


class Clause(msgspec.Struct, frozen=True):
    """One condition that must hold, and its text, which is what a record is dropped for."""

    text: str
    node: Node

    @property
    def quantiles(self) -> list[Quantile]:
        return [node for node in walk(self.node) if isinstance(node, Quantile)]


def clauses(text: str) -> list[Clause]:
    """The parts of a condition that `and` joins at the top, each with its own text. Raises WhereError."""
    return [Clause(" ".join(text[part.start : part.end].split()), part) for part in _joined(_Parser(text).read())]


def uses(clause: Clause, function: str) -> bool:
    """Whether a clause calls a function."""
    return any(isinstance(node, Call) and node.name == function for node in walk(clause.node))


def _joined(node: Node) -> Iterator[Node]:
    if isinstance(node, Logic) and node.op == "and":
        for part in node.operands:
            yield from _joined(part)
    else:
        yield node


def field_name(text: str) -> str:
    """The name of one field as a flag gives it, with or without backquotes."""
    return text[1:-1] if len(text) > 2 and text[0] == text[-1] == "`" else text


class _Parser:
    """Recursive descent. Chains of one operator are loops; the depth of everything else is bounded."""

    def __init__(self, text: str) -> None:
        if len(text) > _MAX_TEXT:
            raise UsageError(f"a condition of {len(text):,} characters: at most {_MAX_TEXT:,}", "give several --where")
        self.text = text
        self.tokens = tokens(text)
        self.at = 0
        self.depth = 0
        self.operators = 0

    def read(self) -> Node:
        if self.peek.kind == "end":
            raise UsageError("an empty condition", "for example: --where 'scores.clip >= 0.28'")
        node = self.condition(self.either())
        if self.peek.kind != "end":
            self.unexpected("and, or, or the end")
        return node

    # Tokens

    @property
    def peek(self) -> Token:
        return self.tokens[self.at]

    def take(self) -> Token:
        token = self.tokens[self.at]
        self.at += 1
        return token

    def accept(self, *texts: str) -> Token | None:
        """The next token if it is one of these operators or words."""
        return self.take() if self.peek.text in texts and self.peek.kind in ("op", "word") else None

    def expect(self, text: str) -> Token:
        return self.accept(text) or self.unexpected(repr(text))

    def fail(self, message: str, at: int, hint: str | None = None) -> NoReturn:
        raise WhereError(message, self.text, at, hint)

    def unexpected(self, wanted: str) -> NoReturn:
        token = self.peek
        got = "the end" if token.kind == "end" else repr(token.text)
        self.fail(f"expected {wanted}, got {got}", token.start, _INSTEAD.get(token.text))

    # Conditions

    def either(self) -> Node:
        return self.chain("or", self.both)

    def both(self) -> Node:
        return self.chain("and", self.negated)

    def chain(self, word: str, part: Callable[[], Node]) -> Node:
        first = part()
        if self.peek.text != word or self.peek.kind != "word":
            return first
        found = [self.condition(first)]
        while self.accept(word):
            found.append(self.condition(part()))
        return Logic(found[0].start, found[-1].end, word, tuple(found))

    def negated(self) -> Node:
        token = self.accept("not")
        if token is None:
            return self.comparison()
        operand = self.condition(self.deeper(self.negated))
        return Logic(token.start, operand.end, "not", (operand,))

    def condition(self, node: Node) -> Node:
        if node.kind in (Kind.CONDITION, Kind.BOOLEAN) or isinstance(node, Field):
            return node
        return self.fail(f"expected a condition, got {node.kind.value}", node.start, "compare it: == < <= > >= in ~")

    def deeper(self, part: Callable[[], Node]) -> Node:
        self.depth += 1
        if self.depth > _MAX_DEPTH:
            self.fail("nested too deeply", self.peek.start)
        node = part()
        self.depth -= 1
        return node

    def comparison(self) -> Node:
        left = self.added()
        token = self.accept(*_COMPARISONS, "in", "~", "not")
        if token is None:
            return left
        if token.text == "not":
            self.expect("in")
            inner = self.contains(left)
            node: Node = Logic(inner.start, inner.end, "not", (inner,))
        elif token.text == "in":
            node = self.contains(left)
        elif token.text == "~":
            node = self.match(left)
        else:
            node = self.compare(left, token)
        if self.peek.kind == "op" and self.peek.text in (*_COMPARISONS, "~"):
            self.fail("one comparison after the other", self.peek.start, "join them: 200 <= width and width <= 400")
        return node

    def compare(self, left: Node, op: Token) -> Node:
        right = self.null_or_value()
        if right is None:
            if not isinstance(left, Field) or op.text not in ("==", "!="):
                self.fail("null cannot be compared", op.start, "missing(FIELD) asks whether a field is there")
            node: Node = Missing(left.start, self.tokens[self.at - 1].end, left)
            return node if op.text == "==" else Logic(node.start, node.end, "not", (node,))
        left, right = self.bound(left, right), self.bound(right, left)
        kinds = {self.value(left).kind, self.value(right).kind} - {Kind.ANY}
        if op.text not in ("==", "!="):
            for side in (left, right):
                if side.kind not in (Kind.NUMBER, Kind.STRING, Kind.ANY):
                    self.fail(f"{op.text} compares numbers or strings, not {side.kind.value}", side.start)
        if len(kinds) == 2:
            first, second = left.kind.value, right.kind.value
            self.fail(f"{op.text} between {first} and {second} is never true", op.start)
        return Compare(left.start, right.end, op.text, left, right)

    def null_or_value(self) -> Node | None:
        return None if self.accept("null") else self.added()

    def bound(self, node: Node, other: Node) -> Node:
        """A q() with the field that it is compared to."""
        if not isinstance(node, Quantile):
            return node
        if not isinstance(other, Field):
            self.fail("q() is compared to a field", node.start, "for example: scores.clip >= q(0.7)")
        return Quantile(node.start, node.end, node.p, other.name)

    def contains(self, item: Node) -> Node:
        self.no_quantile(item)
        container = self.value(self.added())
        if container.kind not in (Kind.LIST, Kind.STRING, Kind.ANY):
            self.fail(f"expected a list or a text, got {container.kind.value}", container.start)
        if container.kind is Kind.STRING and self.value(item).kind not in (Kind.STRING, Kind.ANY):
            self.fail(f"only a text can be in a text, not {item.kind.value}", item.start)
        return Contains(item.start, container.end, self.value(item), container)

    def match(self, text: Node) -> Node:
        token = self.peek
        if token.kind != "string":
            self.unexpected("a regular expression in quotes")
        self.take()
        self.typed(text, Kind.STRING, "~ searches a text")
        try:
            return Match(text.start, token.end, text, compile_pattern(unquote(token.text)))
        except Refused as error:
            self.fail(str(error), token.start, "rewrite it, or join several ~ with and, or")

    # Values

    def value(self, node: Node) -> Node:
        if node.kind is Kind.CONDITION:
            self.fail("expected a value, got a condition", node.start, "conditions are joined by and, or, not")
        return node

    def typed(self, node: Node, kind: Kind, what: str) -> None:
        if self.value(node).kind not in (kind, Kind.ANY):
            self.fail(f"{what}, not {node.kind.value}", node.start)

    def added(self) -> Node:
        return self.arithmetic(("+", "-"), self.product)

    def product(self) -> Node:
        return self.arithmetic(("*", "/", "%"), self.negative)

    def arithmetic(self, ops: tuple[str, ...], part: Callable[[], Node]) -> Node:
        left = part()
        while token := self.accept(*ops):
            self.operators += 1
            if self.operators > _MAX_ARITHMETIC:
                self.fail(f"more than {_MAX_ARITHMETIC} operators", token.start)
            right = part()
            if token.text == "-":
                self.no_hyphen(left.parts[-1] if isinstance(left, Arithmetic) else left, right)
            for side in (left, right):
                self.typed(side, Kind.NUMBER, f"{token.text} takes numbers")
                self.no_quantile(side)
            left = Arithmetic(left.start, right.end, token.text, (left, right))
        return left

    def no_quantile(self, node: Node) -> None:
        if isinstance(node, Quantile):
            self.fail("q() is compared to a field itself", node.start, "for example: scores.clip >= q(0.7)")

    def no_hyphen(self, left: Node, right: Node) -> None:
        """`scores.clip-flip` is a field's name or a difference: the writer says which."""
        if isinstance(left, Field) and isinstance(right, Field) and right.start - left.end == 1:
            whole = self.text[left.start : right.end]
            self.fail(
                f"{whole} can be read in two ways",
                left.end,
                f"backquotes make it one name, `{whole}`; blanks a difference, {left.name} - {right.name}",
            )

    def negative(self) -> Node:
        token = self.accept("-")
        if token is None:
            return self.primary()
        operand = self.deeper(self.negative)
        self.typed(operand, Kind.NUMBER, "- takes a number")
        self.no_quantile(operand)
        if isinstance(operand, Literal):
            return Literal(token.start, operand.end, -operand.value)
        return Arithmetic(token.start, operand.end, "neg", (operand,))

    def primary(self) -> Node:
        token = self.peek
        if token.kind in ("number", "string") or token.text in ("true", "false"):
            return self.literal()
        if token.kind == "quoted":
            self.take()
            return Field(token.start, token.end, token.text[1:-1])
        if token.kind == "name":
            self.take()
            return self.call(token) if self.accept("(") else Field(token.start, token.end, token.text)
        if self.accept("("):
            inner = self.deeper(self.either)
            return msgspec.structs.replace(inner, start=token.start, end=self.expect(")").end)
        if self.accept("["):
            return self.listing(token)
        if token.text == "null":
            self.fail("null cannot be used here", token.start, "missing(FIELD) asks whether a field is there")
        return self.unexpected("a value")

    def literal(self) -> Literal:
        token = self.take()
        if token.kind == "number":
            plain = token.text.isdecimal()
            if plain and len(token.text) > 300:
                self.fail("too long a number", token.start)
            number = int(token.text) if plain else float(token.text)
            if number in (float("inf"), float("-inf")):
                self.fail("too large a number", token.start)
            return Literal(token.start, token.end, number)
        if token.kind == "string":
            return Literal(token.start, token.end, unquote(token.text))
        return Literal(token.start, token.end, token.text == "true")

    def listing(self, opening: Token) -> Node:
        items: list[object] = []
        while not (closing := self.accept("]")):
            if items:
                self.expect(",")
            sign = -1 if self.accept("-") else 1
            if self.peek.kind not in ("number", "string") and self.peek.text not in ("true", "false"):
                self.unexpected("a number, a string, true or false")
            if sign < 0 and self.peek.kind != "number":
                self.unexpected("a number")
            value = self.literal().value
            items.append(sign * value if sign < 0 else value)
        return Literal(opening.start, closing.end, tuple(items))

    def call(self, name: Token) -> Node:
        known = FUNCTIONS.get(name.text)
        if known is None and name.text not in ("missing", "q"):
            close = difflib.get_close_matches(name.text, [*FUNCTIONS, "missing", "q"], n=1)
            hint = f"did you mean {close[0]}?" if close else f"there are {', '.join([*FUNCTIONS, 'missing', 'q'])}"
            self.fail(f"there is no function {name.text!r}", name.start, hint)
        operands: list[Node] = []
        while not (closing := self.accept(")")):
            if operands:
                self.expect(",")
            operands.append(self.value(self.deeper(self.added)))
        if name.text == "missing":
            if len(operands) != 1 or not isinstance(operands[0], Field):
                self.fail("missing() takes a field", name.start, "for example: missing(text)")
            return Missing(name.start, closing.end, operands[0])
        if name.text == "q":
            return self.quantile(name, operands, closing)
        assert known is not None
        if not known.least <= len(operands) <= known.most:
            wanted = "one value" if known.most == 1 else "two or more"
            self.fail(f"{name.text}() takes {wanted}, not {len(operands)}", name.start)
        for operand in operands:
            self.no_quantile(operand)
            if known.takes is not Kind.ANY:
                self.typed(operand, known.takes, f"{name.text}() takes {known.takes.value}")
            elif operand.kind not in (Kind.STRING, Kind.LIST, Kind.ANY):
                self.fail(f"{name.text}() takes a text or a list, not {operand.kind.value}", operand.start)
        return Call(name.start, closing.end, name.text, tuple(operands))

    def quantile(self, name: Token, operands: list[Node], closing: Token) -> Node:
        if len(operands) == 1 and isinstance(operands[0], Literal):
            p = operands[0].value
            if operands[0].kind is Kind.NUMBER and 0 <= p <= 1:
                return Quantile(name.start, closing.end, float(p), "")
        return self.fail("q() takes a number from 0 to 1", name.start, "for example: scores.clip >= q(0.7)")
