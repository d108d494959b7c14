"""Records joined with those of another source."""

from __future__ import annotations

from typing import Any, ClassVar

from clipkit.errors import RecordError
from clipkit.stream.fieldnames import Sought
from clipkit.stream.hashing import value_name
from clipkit.stream.lookup import Lookup
from clipkit.stream.record import Record
from clipkit.stream.sources import SourceOptions, open_source
from clipkit.stream.stage import Drop, Outcome, Stage

_NAMES = ("id", "uid", "key")  # what an id may be in; never taken from the right
_MERGED = ("scores", "emb")  # objects to which several records contribute


class Join(Stage):
    """Gives records the fields of their partner in another source, or keeps them for having one, or none.

    config: right, a source; on, `id` or a field whose value both have; how, one of
      left    add the partner's fields; a field that both have with different values is the record's error
      inner   as left, and drop records without a partner
      update  the partner's values win
      semi    keep records that have a partner, as they are
      anti    keep records that have none, as they are
    prefix: put before the names of what the partner gives, "" for nothing.
    `scores` and `emb` are merged, not replaced, and `via` follows the fields. null is the same as no value.
    runtime: root, as SourceOptions takes it.
    """

    verb: ClassVar[str] = "join"
    inline: ClassVar[bool] = True
    defaults: ClassVar[dict[str, Any]] = {"on": "id", "how": "left", "prefix": ""}

    def setup(self) -> None:
        self._on: str = self.config["on"]
        self._left_fields, self._right_fields = Sought([self._on]), Sought([self._on])
        self._read = self._partners = 0
        self._said: list[str] = []
        right = SourceOptions((self.config["right"],), root=self.runtime.get("root"))
        self._right = Lookup(open_source(right, note=self._said.append), self._right_key)
        if self._on != "id":
            self._right_fields.check(self.config["right"])

    def _right_key(self, record: Record) -> bytes | None:
        return self._key(record, self._right_fields)

    def _key(self, record: Record, fields: Sought) -> bytes | None:
        fields.look(record)
        value = record.id if self._on == "id" else record.lookup(self._on)
        return None if value is None else value_name(value)

    def process(self, items: list[Any]) -> list[Outcome]:
        return [self._join(record) for record in items]

    def _join(self, record: Record) -> Outcome:
        key = self._key(record, self._left_fields)
        partner = None if key is None else self._right.find(key)
        how = self.config["how"]
        self._read += 1
        if partner is None:
            return Drop("join", "no-partner") if how in ("inner", "semi") else record
        self._partners += 1
        if how == "anti":
            return Drop("join", "has-partner")
        if how != "semi":
            self._merge(record, partner)
        return record

    def _merge(self, record: Record, partner: Record) -> None:
        for name in partner:
            value = partner[name]
            if name in (*_NAMES, self._on, "via") or value is None:
                continue
            if name in _MERGED and isinstance(value, dict) and not self.config["prefix"]:
                for inner in value:
                    self._take(record, partner, f"{name}.{inner}")
            else:
                self._take(record, partner, name)

    def _take(self, record: Record, partner: Record, theirs: str) -> None:
        name = self.config["prefix"] + theirs
        mine, value = record.lookup(name), partner.lookup(theirs)
        if value is None or (mine == value and type(mine) is type(value)):
            return
        if mine is not None and self.config["how"] != "update":
            raise RecordError(
                "field-exists",
                f"its {name!r} is {_shown(mine)}, and {_shown(value)} in {partner.where}",
                "--how update takes the second; --prefix right_ keeps both",
            )
        record.take(name, partner, theirs)
        self._take_via(record, partner, theirs)

    def _take_via(self, record: Record, partner: Record, theirs: str) -> None:
        """What `via` says of a field comes with it, and what it said before goes."""
        prefix = self.config["prefix"]
        made, theirs_made = record.get("via"), partner.get("via")
        makers = {prefix + name: maker for name, maker in theirs_made.items()} if isinstance(theirs_made, dict) else {}
        name = prefix + theirs
        for old in list(made) if isinstance(made, dict) else ():
            if (old == name or old.startswith(name + ".")) and old not in makers:
                record.discard(f"via.{old}")
        for new, maker in makers.items():
            if new == name or new.startswith(name + "."):
                record.put(f"via.{new}", maker)
        if record.get("via") == {}:
            del record["via"]

    @property
    def notices(self) -> list[str]:
        """How many found a partner, on either side, where not all did."""
        said, right = list(self._said), self._right
        if self._on != "id":
            said += [f"{message}; {hint}" for message, hint in self._left_fields.problems()]
        if self._partners < self._read or right.found < len(right):
            said.append(
                f"{self._partners:,} of {self._read:,} records have a partner, "
                f"and {right.found:,} of {len(right):,} in {self.config['right']}"
            )
        if self._read and not self._partners and len(right) and self.config["how"] != "anti":
            said.append("no record found a partner: --on FIELD names what both have")
        lost = f"has no {self._on}, and was", f"have no {self._on}, and were"
        failed = "came with an error, and was", "came with an error, and were"
        for count, (one, many) in ((right.unkeyed, lost), (right.failed, failed)):
            if count:
                said.append(f"{count:,} in {self.config['right']} {one if count == 1 else many} left out")
        return said

    @property
    def facts(self) -> dict[str, int]:
        """For --report: records with a partner, those of the right side, and how many of these are one."""
        if not hasattr(self, "_right"):  # it could not be read
            return {}
        return {"partners": self._partners, "right": len(self._right), "right_found": self._right.found}

    def close(self) -> None:
        if hasattr(self, "_right"):
            self._right.close()


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
