"""A condition's tree to Python's: what a user wrote gets into it as constants only, never as source text."""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping, Sequence
from itertools import count
from typing import Any

from clipkit.stream.where import values
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

_BINARY: dict[str, type[ast.operator]] = {
    "+": ast.Add,
    "-": ast.Sub,
    "*": ast.Mult,
    "/": ast.Div,
    "%": ast.Mod,
}
_COMPARE: dict[str, type[ast.cmpop]] = {
    "<": ast.Lt,
    "<=": ast.LtE,
    ">": ast.Gt,
    ">=": ast.GtE,
    "==": ast.Eq,
    "!=": ast.NotEq,
}
_CHECKS = {Kind.NUMBER: "number", Kind.STRING: "string", Kind.BOOLEAN: "truth"}

# Statements that leave a field's value, or None, in a local variable: given its name and the variable's.
Load = Callable[[str, str], list[ast.stmt]]


def asked(node: Node) -> list[str]:
    """The fields whose values a condition needs, in its order; not those only asked whether they are missing."""
    return list(dict.fromkeys(part.name for part in walk(node) if isinstance(part, Field)))


def named(node: Node) -> list[str]:
    """All the fields of a condition."""
    found = (part.field if isinstance(part, Missing) else part for part in walk(node))
    return list(dict.fromkeys(part.name for part in found if isinstance(part, Field)))


class Generator:
    """Makes the parts of one function over a row `r`.

    kinds: fields whose kind is certain; what else comes is checked where it is used. limits: (field, p) -> q(p).
    functions: what `entity` and such call. It collects in `scope` what the function's names stand for.
    """

    def __init__(
        self,
        kinds: Mapping[str, Kind],
        load: Load,
        limits: Mapping[tuple[str, float], float],
        functions: Mapping[str, Callable[[str], bool]],
    ) -> None:
        self._kinds, self._load, self._limits = kinds, load, limits
        self.scope: dict[str, Any] = {name: getattr(values, name) for name in _CHECKS.values()}
        self.scope |= {name: getattr(values, name) for name in ("length", "order", "equal", "contains", "found")}
        self.scope |= {"min": min, "max": max, "abs": abs, "len": len, "__builtins__": {}, **functions}
        self._numbers = count()
        self._variables: dict[str, str] = {}

    # Statements

    def loads(self, names: Sequence[str]) -> list[ast.stmt]:
        """Statements that load fields not loaded before."""
        made: list[ast.stmt] = []
        for name in names:
            if name not in self._variables:
                self._variables[name] = self._fresh("f")
                made += self._load(name, self._variables[name])
        return made

    def refusal(self, node: Node, number: int) -> list[ast.stmt]:
        """Statements that return `number` where a condition is false; where it is unknown, what `unknown` gives."""
        names = [_name(self._variables[name]) for name in asked(node)]
        unknown = _return(_call("unknown", _constant(number), *names))
        if isinstance(node, Logic):
            held = self._fresh("t")
            none = _if(_is(_name(held), None), [unknown])
            return [_assign(held, self.condition(node)), none, _if(_not(_name(held)), [_return(_constant(number))])]
        absent: list[ast.stmt] = [_if(_any_none(names), [unknown])] if names else []
        return [*absent, _if(_not(self._certain(node)), [_return(_constant(number))])]

    # Conditions: True, False, or None where a field they need is missing (Kleene's logic)

    def condition(self, node: Node) -> ast.expr:
        if isinstance(node, Logic):
            if node.op == "not":
                held = self._fresh("t")
                inner = self.condition(node.operands[0])
                return ast.IfExp(_is(_held(held, inner), None), _constant(None), _not(_name(held)))
            return self._joined(node.operands, decisive=node.op == "or")
        names = [_name(self._variables[name]) for name in asked(node)]
        certain = self._certain(node)
        return ast.IfExp(_any_none(names), _constant(None), certain) if names else certain

    def _joined(self, operands: Sequence[Node], *, decisive: bool) -> ast.expr:
        """`or` (decisive: True) and `and` (False): the second half counts where the first has not decided."""
        if len(operands) == 1:
            return self.condition(operands[0])
        middle = len(operands) // 2
        first, second = self._fresh("t"), self._fresh("t")
        left = self._joined(operands[:middle], decisive=decisive)
        right = self._joined(operands[middle:], decisive=decisive)
        settled = ast.BoolOp(ast.Or(), [_is(_held(second, right), decisive), _is(_name(first), not decisive)])
        rest = ast.IfExp(settled, _name(second), _constant(None))
        return ast.IfExp(_is(_held(first, left), decisive), _constant(decisive), rest)

    def _certain(self, node: Node) -> ast.expr:
        """A condition whose fields are all there."""
        match node:
            case Missing():
                return _is(_name(self._variables[node.field.name]), None)
            case Compare():
                return self._compare(node)
            case Contains():
                return self._contains(node)
            case Match():
                search = self._global(node.pattern.search)
                return _call("found", search, self._checked(node.text, Kind.STRING), _constant(_said(node.text)))
            case Call():
                return self.value(node)
            case _:
                return self._checked(node, Kind.BOOLEAN)

    def _compare(self, node: Compare) -> ast.expr:
        left, right, op = node.left, node.right, _COMPARE[node.op]()
        kinds = [self._kind(left), self._kind(right)]
        if node.op in ("==", "!="):
            sure = Kind.STRING in kinds or (kinds[0] is kinds[1] and kinds[0] in (Kind.NUMBER, Kind.BOOLEAN))
            if sure:
                return ast.Compare(self.value(left), [op], [self.value(right)])
            same = _call("equal", self.value(left), self.value(right))
            return same if node.op == "==" else _not(same)
        known = next((kind for kind in kinds if kind is not Kind.ANY), None)
        if known is None:
            sign = _call("order", self.value(left), self.value(right), _constant(node.op))
            return ast.Compare(sign, [op], [_constant(0)])
        return ast.Compare(self._checked(left, known), [op], [self._checked(right, known)])

    def _contains(self, node: Contains) -> ast.expr:
        item, container = node.item, node.container
        if isinstance(container, Literal):
            kinds = {Literal(0, 0, value).kind for value in container.value} if container.kind is Kind.LIST else set()
            if len(kinds) == 1 and kinds == {self._kind(item)} and Kind.BOOLEAN not in kinds:
                return ast.Compare(self.value(item), [ast.In()], [self._global(frozenset(container.value))])
        elif self._kind(container) is Kind.STRING:
            return ast.Compare(self._checked(item, Kind.STRING), [ast.In()], [self.value(container)])
        said = (_constant(_said(container)), _constant(_said(item)))
        return _call("contains", self.value(container), self.value(item), *said)

    # Values

    def value(self, node: Node) -> ast.expr:
        match node:
            case Literal():
                return self._global(node.value) if isinstance(node.value, tuple) else _constant(node.value)
            case Field():
                return _name(self._variables[node.name])
            case Quantile():
                return self._global(self._limits[node.field, node.p])
            case Arithmetic(op="neg"):
                return ast.UnaryOp(ast.USub(), self._checked(node.operands[0], Kind.NUMBER))
            case Arithmetic():
                left, right = (self._checked(part, Kind.NUMBER) for part in node.operands)
                return ast.BinOp(left, _BINARY[node.op](), right)
            case Call():
                return self._function(node)
        raise TypeError(node)

    def _function(self, node: Call) -> ast.expr:
        takes = FUNCTIONS[node.name].takes
        first = node.operands[0]
        if node.name == "len":
            if self._kind(first) in (Kind.STRING, Kind.LIST):
                return _call("len", self.value(first))
            return _call("length", self.value(first), _constant(_said(first)))
        operands = [self._checked(part, takes) for part in node.operands]
        if node.name == "words":
            return _call("len", ast.Call(ast.Attribute(operands[0], "split", ast.Load()), [], []))
        if node.name == "lower":
            return ast.Call(ast.Attribute(operands[0], "lower", ast.Load()), [], [])
        if node.name in ("min", "max") and len(operands) == 2 and all(isinstance(part, ast.Name) for part in operands):
            first_wins = ast.LtE() if node.name == "min" else ast.GtE()  # as the function does, without a call
            return ast.IfExp(ast.Compare(operands[0], [first_wins], [operands[1]]), operands[0], operands[1])
        return _call(node.name, *operands)

    def _checked(self, node: Node, kind: Kind) -> ast.expr:
        """A value, which has to be of a kind."""
        made = self.value(node)
        return made if self._kind(node) is kind else _call(_CHECKS[kind], made, _constant(_said(node)))

    def _kind(self, node: Node) -> Kind:
        return self._kinds.get(node.name, Kind.ANY) if isinstance(node, Field) else node.kind

    def _global(self, value: Any) -> ast.expr:
        name = self._fresh("c")
        self.scope[name] = value
        return _name(name)

    def _fresh(self, letter: str) -> str:
        return f"{letter}{next(self._numbers)}"


def _said(node: Node) -> str:
    """How a message calls a value: by its field."""
    return " and ".join(asked(node)) or "a value"


# Python's tree, in fewer words


def _name(name: str) -> ast.expr:
    return ast.Name(name, ast.Load())


def _constant(value: Any) -> ast.expr:
    return ast.Constant(value)


def _held(name: str, value: ast.expr) -> ast.expr:
    return ast.NamedExpr(ast.Name(name, ast.Store()), value)


def _is(value: ast.expr, constant: bool | None) -> ast.expr:
    return ast.Compare(value, [ast.Is()], [ast.Constant(constant)])


def _not(value: ast.expr) -> ast.expr:
    return ast.UnaryOp(ast.Not(), value)


def _call(name: str, *arguments: ast.expr) -> ast.expr:
    return ast.Call(_name(name), list(arguments), [])


def _assign(name: str, value: ast.expr) -> ast.stmt:
    return ast.Assign([ast.Name(name, ast.Store())], value)


def _if(test: ast.expr, body: list[ast.stmt]) -> ast.stmt:
    return ast.If(test, body, [])


def _return(value: ast.expr) -> ast.stmt:
    return ast.Return(value)


def _any_none(names: Sequence[ast.expr]) -> ast.expr:
    tests = [_is(name, None) for name in names]
    return tests[0] if len(tests) == 1 else ast.BoolOp(ast.Or(), tests)
