"""Verbs that only choose: what lets whole blocks of lines be decided at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, ClassVar

from clipkit.stream.engine import execute
from clipkit.stream.rows import Columns
from clipkit.stream.sources.blocks import Chosen
from clipkit.stream.sources.source import Source
from clipkit.stream.stage import Stage

HELD = -1


class Selecting(Stage):
    """A stage that keeps records as they came, or drops them for one of its `steps`, by a few of their fields."""

    inline: ClassVar[bool] = True

    def row_test(self, columns: Columns) -> Callable[[Any], int] | None:
        """A function of rows with the columns that it asks for: HELD, or the number of the step that drops it.

        It says what `process` would; where it raises, of whatever kind, the record itself is processed. Called after
        `setup`. None where there is no such function.
        """
        return None


def select(stage: Stage, source: Iterable[Any], decide: Callable[[Any], Any]) -> Iterator[tuple[Any, Any]] | None:
    """As `engine.execute`, with `(Chosen, None)` for lines that were decided together. None where that cannot be."""
    if not isinstance(stage, Selecting) or not isinstance(source, Source) or not source.plain:
        return None
    columns = Columns()
    test = stage.row_test(columns)
    if test is None:
        return None
    return _results(stage, source.selected(columns.row(), test, stage.steps), decide)


def _results(stage: Selecting, pieces: Iterator[Any], decide: Callable[[Any], Any]) -> Iterator[tuple[Any, Any]]:
    for piece in pieces:
        if isinstance(piece, Chosen):
            yield piece, None
        else:
            yield from execute(stage, (piece,), workers=1, decide=decide)
