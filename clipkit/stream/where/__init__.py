"""The `--where` language: conditions on a record's fields, compiled once. docs/filter.md says what it means."""

from clipkit.stream.where.generator import named
from clipkit.stream.where.program import Program
from clipkit.stream.where.syntax import Clause, clauses, field_name, uses
from clipkit.stream.where.tokens import WhereError

__all__ = ["Clause", "Program", "WhereError", "clauses", "field_name", "named", "uses"]
