"""A small real stage, and a program around it: what the runner's tests run, in this process and in others.

Run it as: python toy.py IN OUT [--resume ...]; it exits as a verb would.
"""

from __future__ import annotations

import dataclasses
import hashlib
import sys
import time
from typing import Any

from clipkit.errors import ClipkitError, RecordError, Terminated
from clipkit.stream.record import Record
from clipkit.stream.runner import RunOptions, run
from clipkit.stream.sources import SourceOptions, open_source
from clipkit.stream.spool import Rows
from clipkit.stream.stage import Drop, Outcome, Row, Stage
from clipkit.stream.whole import WholeStage


class Toy(Stage):
    """Adds the sha256 of `text`; fails on "bad", drops "odd"; sleeps `delay` seconds a record."""

    verb = "toy"
    reads = ("text",)
    adds = ("hash",)

    def setup(self) -> None:
        self.batch_size = self.config.get("batch_size", 4)
        self.lanes = self.config.get("lanes", 0)
        self.seen: list[str] = []

    def prepare(self, record: Record) -> Any:
        if "bad" in record["text"]:
            raise RecordError("toy-bad", f"the text is {record['text']!r}")
        time.sleep(self.runtime.get("delay", 0))
        return record, hashlib.sha256((self.config["salt"] + record["text"]).encode()).hexdigest()

    def process(self, items: list[Any]) -> list[Outcome]:
        out: list[Outcome] = []
        for record, digest in items:
            self.seen.append(record.id)
            if "half" in record["text"]:
                record["left"] = "half done"
                raise RecordError("toy-half", "failed half-way")
            if "odd" in record["text"]:
                record["left"] = "then dropped"
                out.append(Drop("toy", "odd", record["text"], None))
            elif "nan" in record["text"]:
                record["hash"] = float("nan")
                out.append(record)
            else:
                record.add("hash", digest, "toy")
                out.append(record)
        return out


class InlineToy(Toy):
    inline = True


class WholeToy(WholeStage):
    """Adds the rank of `text` by its sha256; drops ranks below `drop`; fails on "bad" and, deciding, on "late"."""

    verb = "toy"
    reads = ("text",)
    adds = ("rank",)

    def setup(self) -> None:
        self.batch_size = 4
        self.seen: list[str] = []
        self.learned = 0
        self.toy = Toy({"salt": self.config["salt"]}, self.runtime)
        self.toy.setup()

    def fingerprint(self) -> dict[str, Any]:
        return {"salt": self.config["salt"]}

    def prepare(self, record: Record) -> Any:
        return self.toy.prepare(record)

    def process(self, items: list[Any]) -> list[Outcome]:
        self.seen += [record.id for record, _ in items]
        return [Row(bytes.fromhex(digest)) for _, digest in items]

    def learn(self, rows: Rows) -> None:
        self.learned += 1
        self.names = [name for name, _ in rows]
        self.ranks = {row: rank for rank, row in enumerate(sorted(set(rows.data())))}

    def decide(self, record: Record, row: bytes, number: int) -> Outcome:
        assert self.names[number] == record.id
        rank = self.ranks[row]
        record["left"] = "half done"
        if "late" in record["text"]:
            raise RecordError("toy-late", "failed when it was decided")
        if rank < self.config.get("drop", 0):
            return Drop("toy", "low", rank, self.config["drop"])
        del record["left"]
        record.add("rank", rank, "toy")
        return record


def main(argv: list[str]) -> int:
    source, out, *flags = argv
    names = {field.name for field in dataclasses.fields(RunOptions)}
    options: dict[str, Any] = {"on_error": "keep", "rejects": out + ".rejects"}
    delay = 0.002
    kind: type[Toy | WholeToy] = Toy
    for flag in flags:
        name, _, value = flag.removeprefix("--").partition("=")
        if name == "delay":
            delay = float(value)
        elif name == "whole":
            kind = WholeToy
        else:
            assert name in names, name
            options[name] = value or True
    try:
        return run(
            kind({"salt": "s"}, {"delay": delay}), open_source(SourceOptions((source,))), RunOptions(out=out, **options)
        )
    except ClipkitError as error:
        print(f"{error} / {error.hint}", file=sys.stderr)
        return error.code
    except KeyboardInterrupt:
        return 130
    except Terminated:
        return 143


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
