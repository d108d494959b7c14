"""Conditions compiled to one function of a record, and to a faster one of a row that holds just their fields."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from clipkit.errors import RecordError
from clipkit.stream.record import Record
from clipkit.stream.rows import Columns
from clipkit.stream.where.generator import Generator, Load, asked, named
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
    Node,
    walk,
)
from clipkit.stream.where.syntax import Clause
from clipkit.stream.where.values import Mistyped

HELD = -1
_TYPES: dict[Kind, Any] = {
    Kind.NUMBER: int | float | None,
    Kind.STRING: str | None,
    Kind.BOOLEAN: bool | None,
    Kind.ANY: Any,
}


class Program:
    """Clauses that must all hold.

    limits: (field, p) -> the number that q(p) stands for, for each q() in them; NaN holds for no record.
    functions: what stands behind names such as `entity`.
    missing: field -> in how many records a clause could not be decided because the field was missing.
    """

    def __init__(
        self,
        clauses: Sequence[Clause],
        limits: Mapping[tuple[str, float], float] | None = None,
        functions: Mapping[str, Callable[[str], bool]] | None = None,
    ) -> None:
        self.clauses = clauses
        self.missing: Counter[str] = Counter()
        self._limits, self._functions = limits or {}, functions or {}
        self._asked = [asked(clause.node) for clause in clauses]
        self._sides: dict[int, Callable[[Record], tuple[Any, Any]]] = {}
        self._test = self._compiled(range(len(clauses)), {}, _from_record)

    def test(self, record: Record) -> int:
        """HELD where all clauses hold, else which is the first that doesn't: it is false, or cannot be decided.

        Raises RecordError (`bad-type`, `bad-value`): a value is of a kind that an operator does not take; a division
        by zero.
        """
        try:
            return self._test(record)
        except Mistyped as error:
            raise RecordError("bad-type", f"{self._culprit(record)}: {error.message}", where=record.where) from None
        except (ArithmeticError, ValueError) as error:
            said = "division by zero" if isinstance(error, ZeroDivisionError) else "a number too large"
            raise RecordError("bad-value", f"{self._culprit(record)}: {said}", where=record.where) from None

    def row_test(self, columns: Columns) -> Callable[[Any], int] | None:
        """The same for rows of a type that `columns` will make; None where no such row can stand for a record.

        What it raises, of any kind, means that the record itself has to be asked.
        """
        kinds = _kinds([clause.node for clause in self.clauses])
        names = dict.fromkeys(name for clause in self.clauses for name in named(clause.node))
        paths = {}
        for name in names:
            path = columns.want(name, _TYPES[kinds.get(name, Kind.ANY)])
            if path is None:
                return None
            paths[name] = path

        def load(name: str, variable: str) -> list[ast.stmt]:
            return _from_row(paths[name], variable)

        return self._compiled(range(len(self.clauses)), kinds, load)

    def sides(self, number: int, record: Record) -> tuple[Any, Any]:
        """The two values that a clause compares; None for what is none, is missing, or is a condition itself."""
        node = self.clauses[number].node
        if not isinstance(node, Compare):
            return None, None
        if number not in self._sides:
            self._sides[number] = self._pair(node)
        try:
            return self._sides[number](record)
        except (Mistyped, TypeError, ArithmeticError):
            return None, None

    def _compiled(self, numbers: Iterable[int], kinds: Mapping[str, Kind], load: Load) -> Callable[[Any], int]:
        generator = Generator(kinds, load, self._limits, self._functions)
        body: list[ast.stmt] = []
        for number in numbers:
            node = self.clauses[number].node
            body += [*generator.loads(named(node)), *generator.refusal(node, number)]
        body.append(ast.Return(ast.Constant(HELD)))
        return _function(body, generator.scope | {"unknown": self._unknown})

    def _pair(self, node: Compare) -> Callable[[Any], tuple[Any, Any]]:
        generator = Generator({}, _from_record, self._limits, self._functions)
        loads = generator.loads(named(node))
        both = ast.Tuple([generator.value(node.left), generator.value(node.right)], ast.Load())
        return _function([*loads, ast.Return(both)], generator.scope)

    def _unknown(self, number: int, *found: Any) -> int:
        for name, value in zip(self._asked[number], found, strict=True):
            if value is None:
                self.missing[name] += 1
        return number

    def _culprit(self, record: Record) -> str:
        """The text of the clause that fails for a record."""
        for number, clause in enumerate(self.clauses):
            before = self.missing.copy()
            try:
                self._compiled([number], {}, _from_record)(record)
            except (Mistyped, ArithmeticError, ValueError):
                return clause.text
            finally:
                self.missing = before
        raise AssertionError("a condition that failed does not")


def _function(body: list[ast.stmt], scope: dict[str, Any]) -> Callable[[Any], Any]:
    """A function of one row `r`."""
    arguments = ast.arguments([], [ast.arg("r")], None, [], [], None, [])
    definition = ast.FunctionDef("test", arguments, body, [])
    module = ast.fix_missing_locations(ast.Module([definition], []))
    exec(compile(module, "<where>", "exec"), scope)  # noqa: S102 - a tree of our own making
    made: Callable[[Any], Any] = scope["test"]
    return made


def _from_record(name: str, variable: str) -> list[ast.stmt]:
    lookup = ast.Attribute(ast.Name("r", ast.Load()), "lookup", ast.Load())
    return [ast.Assign([ast.Name(variable, ast.Store())], ast.Call(lookup, [ast.Constant(name)], []))]


def _from_row(path: tuple[str, ...], variable: str) -> list[ast.stmt]:
    def step(value: str, attribute: str) -> ast.stmt:
        found = ast.Attribute(ast.Name(value, ast.Load()), attribute, ast.Load())
        return ast.Assign([ast.Name(variable, ast.Store())], found)

    made = [step("r", path[0])]
    for attribute in path[1:]:
        there = ast.Compare(ast.Name(variable, ast.Load()), [ast.IsNot()], [ast.Constant(None)])
        made.append(ast.If(there, [step(variable, attribute)], []))
    return made


def _kinds(nodes: Iterable[Node]) -> dict[str, Kind]:
    """The kind that every use of a field asks for, where they agree; == with a string asks for none."""
    found: dict[str, Kind] = {}

    def note(node: Node, kind: Kind) -> None:
        if isinstance(node, Field) and kind is not Kind.ANY:
            found[node.name] = kind if found.setdefault(node.name, kind) is kind else Kind.ANY

    for top in nodes:
        note(top, Kind.BOOLEAN)
        for node in walk(top):
            match node:
                case Arithmetic():
                    _each(note, node.operands, Kind.NUMBER)
                case Call():
                    _each(note, node.operands, FUNCTIONS[node.name].takes)
                case Match():
                    note(node.text, Kind.STRING)
                case Logic():
                    _each(note, node.operands, Kind.BOOLEAN)
                case Compare():
                    for side, other in ((node.left, node.right), (node.right, node.left)):
                        if other.kind is not Kind.STRING or node.op not in ("==", "!="):
                            note(side, other.kind if other.kind in _TYPES else Kind.ANY)
                case Contains(item=item, container=Literal(value=tuple(wanted))):
                    kinds = {Literal(0, 0, value).kind for value in wanted}
                    note(item, kinds.pop() if len(kinds) == 1 else Kind.ANY)
    return {name: kind for name, kind in found.items() if kind is not Kind.ANY}


def _each(note: Callable[[Node, Kind], None], nodes: Iterable[Node], kind: Kind) -> None:
    for node in nodes:
        note(node, kind)
