"""For each class the name that most captions use: REAL-Prompt (Parashar et al., 2024)."""

from __future__ import annotations

import itertools
from array import array
from collections import Counter
from collections.abc import Iterator
from typing import Any, ClassVar

from clipkit.errors import RecordError
from clipkit.methods.concepts.synonyms import choose, listed, synonyms_of
from clipkit.stream.record import Record
from clipkit.stream.spool import Rows
from clipkit.stream.stage import Outcome, Row
from clipkit.stream.table import Column
from clipkit.stream.whole import WholeStage
from clipkit.text.concepts import ConceptMatcher
from clipkit.text.labels import Labels
from clipkit.text.templates import fill

CHOICE_COLUMNS = (
    Column("class", 28, lambda row: row.id or ""),
    Column("most frequent", 28, lambda row: str(row["synonym"])),
    Column("captions", 9, lambda row: f"{row['count']:,}", right=True),
    Column("others", 50, lambda row: _others(row["counts"], row["synonym"])),
)


class Synonyms(WholeStage):
    """Counts in how many captions each name of each class is, and writes which has most.

    config: labels (list of names); synonyms (class -> list, None for WordNet's); templates; as_labels: write one
    object, class -> prompts, which is a label file, instead of a record a class.
    """

    verb: ClassVar[str] = "concepts synonyms"
    inline: ClassVar[bool] = True
    reads: tuple[str, ...] = ("text",)
    defaults: ClassVar[dict[str, Any]] = {"synonyms": None, "templates": ["a photo of a {}."], "as_labels": False}

    def setup(self) -> None:
        self._names = Labels.from_json(self.config["labels"]).names
        self._synonyms = synonyms_of(self._names, self.config["synonyms"])
        self._matcher = ConceptMatcher([(text,) for group in self._synonyms.groups for text in group])
        self._choices: list[dict[str, Any]] = []

    @property
    def summarises(self) -> bool:
        return True

    def process(self, items: list[Any]) -> list[Outcome]:
        return [self._row(record) for record in items]

    def _row(self, record: Record) -> Outcome:
        if not isinstance(record["text"], str):
            return RecordError("bad-field", "field 'text' is not a string")
        return Row(array("I", sorted(self._matcher.find(record["text"]))).tobytes())

    def learn(self, rows: Rows) -> None:
        found: Counter[int] = Counter()
        for row in rows.data():
            found.update(array("I", row))
        numbers = itertools.count()
        for name, group in zip(self._names, self._synonyms.groups, strict=True):
            counts = {text: found[next(numbers)] for text in group}
            chosen = choose(counts)
            prompts = [fill(template, chosen) for template in self.config["templates"]]
            self._choices.append(
                {"id": name, "synonym": chosen, "count": counts[chosen], "counts": counts, "prompts": prompts}
            )

    def summary(self) -> Iterator[Record]:
        if self.config["as_labels"]:
            yield Record({choice["id"]: choice["prompts"] for choice in self._choices})
        else:
            yield from map(Record, self._choices)

    @property
    def facts(self) -> dict[str, Any]:
        return {"classes": {choice["id"]: choice["counts"] for choice in self._choices}}

    @property
    def notices(self) -> list[str]:
        """What was chosen instead of class names, to be looked at; classes that no caption names; what was left out."""
        renamed = [choice for choice in self._choices if choice["synonym"] != next(iter(choice["counts"]))]
        unseen = [choice["id"] for choice in self._choices if not choice["count"]]
        said = []
        if renamed:
            told = [
                f"{c['id']} is {c['synonym']} ({c['count']:,}, not {next(iter(c['counts'].values())):,})"
                for c in renamed
            ]
            said.append(f"{len(renamed):,} renamed, of which any may mean other things too: {listed(told)}")
        if unseen:
            said.append(f"{len(unseen):,} in no caption, under any name: {listed(unseen)}")
        return [*said, *self._synonyms.notices]


def _others(counts: dict[str, int], chosen: str) -> str:
    rest = sorted((-count, text) for text, count in counts.items() if text != chosen)
    return ", ".join(f"{text} {-count:,}" for count, text in rest)
