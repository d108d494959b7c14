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
from clipkit.stream.stage import Drop, Outcome, Stage


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


def main(argv: list[str]) -> int:
    source, out, *flags = argv
    names = {field.name for field in dataclasses.fields(RunOptions)}
    options: dict[str, Any] = {"on_error": "keep", "rejects": out + ".rejects"}
    delay = 0.002
    for flag in flags:
        name, _, value = flag.removeprefix("--").partition("=")
        if name == "delay":
            delay = float(value)
        else:
            assert name in names, name
            options[name] = value or True
    try:
        return run(
            Toy({"salt": "s"}, {"delay": delay}), open_source(SourceOptions((source,))), RunOptions(out=out, **options)
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
