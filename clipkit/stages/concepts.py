"""How often each concept of a list occurs in the captions of a set (Udandarao et al., 2024)."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

from clipkit.errors import RecordError
from clipkit.methods.concepts.counts import ANY, Counts
from clipkit.methods.concepts.synonyms import listed
from clipkit.stream.record import Record, encode_json
from clipkit.stream.spool import Rows
from clipkit.stream.stage import Outcome, Row, Stage
from clipkit.stream.table import Column
from clipkit.stream.whole import WholeStage
from clipkit.text.concepts import ConceptMatcher

COUNT_COLUMNS = (
    Column("concept", 40, lambda row: str(row.get("concept") or "any of them")),
    Column("text", 9, lambda row: _shown(row, "text"), right=True, optional=True),
    Column("image", 9, lambda row: _shown(row, "image"), right=True, optional=True),
    Column("both", 9, lambda row: _shown(row, "both"), right=True, optional=True),
    Column("records", 11, lambda row: _shown(row, "records"), right=True),
)
TAIL_COLUMNS = (
    Column("concept", 40, lambda row: str(row["concept"])),
    Column("count", 9, lambda row: _shown(row, "count"), right=True),
    Column("frequency", 10, lambda row: f"{row['frequency']:.2e}", right=True),
)


class CountConcepts(WholeStage):
    """Counts concepts in captions, and writes the rows of `Counts`.

    config: names, and groups (of each the spellings that count for it), as `read_concepts` gives them; part: `I/N`
    where the records are a part of a set.
    """

    verb: ClassVar[str] = "concepts count"
    mergeable: ClassVar[bool] = True
    inline: ClassVar[bool] = True
    reads: tuple[str, ...] = ("text",)
    sides: tuple[str, ...] = ("text",)

    def setup(self) -> None:
        self._matcher = ConceptMatcher(self.config["groups"])
        self.counts = Counts(tuple(self.config["names"]), self.settings(), self.sides)
        if part := self.config.get("part"):
            self.counts.parts = (part,)

    @property
    def summarises(self) -> bool:
        return True

    def settings(self) -> dict[str, Any]:
        """What must be equal for counts to add up."""
        listed = encode_json([self.config["names"], self.config["groups"]])
        return {"concepts": hashlib.blake2b(listed, digest_size=6).hexdigest()}

    def named(self, record: Record) -> list[int]:
        """The concepts of a caption. Raises RecordError."""
        text = record["text"]
        if not isinstance(text, str):
            raise RecordError("bad-field", "field 'text' is not a string")
        return sorted(self._matcher.find(text))

    def prepare(self, record: Record) -> Any:
        return self.named(record)

    def process(self, items: list[Any]) -> list[Outcome]:
        return [self.row(named, []) for named in items]

    def row(self, named: list[int], shown: list[int]) -> Row:
        """What is remembered of one record: the concepts of its caption, and of its image."""
        return Row(array("I", [len(named), *named, *shown]).tobytes())

    def learn(self, rows: Rows) -> None:
        names = self.counts.names
        for data in rows.data():
            count, *found = array("I", data)
            self.counts.add((names[at] for at in found[:count]), (names[at] for at in found[count:]))

    def summary(self) -> Iterator[Record]:
        return self.counts.rows()

    @property
    def results(self) -> list[str]:
        lines = []
        for side, said in (("text", "captions"), ("image", "images"), ("both", "caption and image at once")):
            if side in self.counts.sides:
                seen = sum(count > 0 for count in self.counts.by(side).values())
                lines.append(f"  {seen:,} of {len(self.counts.names):,} concepts occur in {said}")
        if self.counts.misaligned is not None:
            share, of = f"{100 * self.counts.misaligned:.1f} %", f"{self.counts.any['either']:,}"
            lines.append(f"  misaligned: {share} of the {of} records with a concept in caption or image share none")
        return lines

    @property
    def facts(self) -> dict[str, Any]:
        found = {"concepts": len(self.counts.names), "records": self.counts.records, ANY: self.counts.any}
        return found if "both" not in self.counts.sides else {**found, "misaligned": self.counts.misaligned}


class Tail(Stage):
    """Passes on what `clipkit.methods.concepts.tail` made of counts. config: missing, as `Counts` has it."""

    verb: ClassVar[str] = "concepts tail"
    inline: ClassVar[bool] = True
    defaults: ClassVar[dict[str, Any]] = {"missing": []}

    @property
    def notices(self) -> list[str]:
        return missing_parts(self.config["missing"])

    def process(self, items: list[Any]) -> list[Outcome]:
        return items


def missing_parts(missing: Sequence[str]) -> list[str]:
    """What to say of parts I/N whose counts are not there."""
    return [f"counts are too low, as parts are missing: {listed(missing)}"] if missing else []


def _shown(row: Record, name: str) -> str:
    value = row.get(name)
    return "" if value is None else f"{value:,}"
