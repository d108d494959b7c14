"""Stages that read everything first: two passes, the first of them journalled, whatever stops it."""

from __future__ import annotations

import hashlib
import json
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from clipkit import api
from clipkit.errors import ClipkitError, ExitCode, RecordError
from clipkit.stream.record import Record
from clipkit.stream.runner import RunOptions, run
from clipkit.stream.sources import SourceOptions, open_source
from clipkit.stream.spool import Rows
from clipkit.stream.stage import Drop, Outcome, Row
from clipkit.stream.whole import WholeStage
from tests.stream.toy import Toy, WholeToy

WORDS = ["plain", "late", "bad one", "café", "x" * 500, "other", "nan"]


def lines(count: int, seed: int = 0) -> list[bytes]:
    """Records of every fate; a broken line, one that arrives with an error, one without the field that is read."""
    pick = random.Random(seed)
    made = [f'{{"id":"r{i}","text":"{pick.choice(WORDS)} {i}","f":1.10}}'.encode() for i in range(count)]
    made[3] = b'{"id": "broken", '
    made[4] = b'{"id":"r4","text":"plain","error":{"verb":"scan","type":"x","message":"m"}}'
    made[5] = b'{"id":"r5","other":1.10}'
    return made


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    path = tmp_path / "in.jsonl"
    path.write_bytes(b"\n".join(lines(60)) + b"\n")
    return path


def go(source: Path, out: Path, stage: WholeToy | None = None, **options: Any) -> ExitCode:
    stage = stage or WholeToy({"salt": "s", "drop": 10})
    return run(stage, open_source(SourceOptions((str(source),))), RunOptions(out=str(out), **options))


def ranks(given: list[bytes]) -> dict[str, int]:
    """The rank of each record that has a row, worked out again."""
    digests = {}
    for i, line in enumerate(given):
        if i not in (3, 4, 5) and b"bad" not in line:
            record = json.loads(line)
            digests[record["id"]] = hashlib.sha256(b"s" + record["text"].encode()).hexdigest()
    order = sorted(digests.values())
    return {name: order.index(digest) for name, digest in digests.items()}


def records(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def test_every_record_meets_its_fate_in_input_order(manifest: Path, tmp_path: Path) -> None:
    code = go(manifest, tmp_path / "o", on_error="keep", mark=True, report=str(tmp_path / "report"))
    assert code is ExitCode.SOME_FAILED
    given, rank = lines(60), ranks(lines(60))
    out = (tmp_path / "o").read_bytes().splitlines()
    assert len(out) == 60
    fates: Counter[str] = Counter()
    for i, (line, before) in enumerate(zip(out, given, strict=True)):
        record = json.loads(line)
        if i == 3:
            assert record["line"] == before.decode()
            fates["bad-json"] += 1
        elif i == 4:
            assert line == before
            fates["passed"] += 1
        elif "error" in record:
            kind = record["error"]["type"]
            assert kind == ("missing-field" if i == 5 else "toy-bad" if b"bad" in before else "toy-late")
            assert line.startswith(before[:-1])  # as it came, and its error
            fates[kind] += 1
        elif "drop" in record:
            assert rank[record["id"]] < 10 and record["drop"]["value"] == rank[record["id"]]
            assert line.startswith(before[:-1])
            fates["low"] += 1
        else:
            assert record["rank"] == rank[record["id"]] >= 10
            fates["kept"] += 1
    assert {"kept", "low", "toy-late", "toy-bad", "missing-field", "bad-json", "passed"} == set(fates)
    report = json.loads((tmp_path / "report").read_text())
    failures = {name: fates[name] for name in ("bad-json", "missing-field", "toy-bad", "toy-late")}
    assert report["failures"] == failures and report["drops"] == {"low": fates["low"]}
    counts = {"read": 60, "kept": fates["kept"], "dropped": fates["low"], "failed": sum(failures.values()), "passed": 1}
    assert report["counts"] == counts


@pytest.mark.parametrize("policy", ["skip", "keep"])
def test_policies_are_those_of_any_stage(manifest: Path, tmp_path: Path, policy: str) -> None:
    go(manifest, tmp_path / "o", on_error=policy, rejects=str(tmp_path / "r"))
    failed = [record for record in records(tmp_path / "r") if record["error"]["verb"] == "toy"]
    assert Counter(r["error"]["type"] for r in failed)["toy-late"] > 0
    kept = [record for record in records(tmp_path / "o") if record.get("error", {}).get("verb") == "toy"]
    assert kept == (failed if policy == "keep" else [])


def test_fail_stops_where_the_first_pass_fails_not_after_it(tmp_path: Path) -> None:
    read = 0

    def counted() -> Iterator[Record]:
        nonlocal read
        for i in range(1000):
            read += 1
            yield Record.parse(json.dumps({"id": f"r{i}", "text": "bad" if i == 2 else "x"}).encode(), f"f:{i}")

    stage = WholeToy({"salt": "s"})
    with pytest.raises(RecordError) as caught:
        run(stage, counted(), RunOptions(out=str(tmp_path / "o"), on_error="fail", workers=1))
    assert caught.value.where == "f:2" and read < 500 and not stage.learned
    assert not (tmp_path / "o").exists() and not (tmp_path / "o.part").exists()


def test_order_and_bytes_do_not_depend_on_how_it_runs(manifest: Path, tmp_path: Path) -> None:
    class Inline(WholeToy):
        inline = True

    config = {"salt": "s", "drop": 10}
    for workers in (1, 3):
        go(manifest, tmp_path / f"o{workers}", on_error="keep", workers=workers)
    go(manifest, tmp_path / "inline", Inline(config), on_error="keep")
    source = open_source(SourceOptions((str(manifest),)))
    from_python = [record.encode() for record in api.run(WholeToy(config), source, on_error="keep")]
    whole = (tmp_path / "o1").read_bytes()
    assert whole == (tmp_path / "o3").read_bytes() == (tmp_path / "inline").read_bytes()
    assert whole.splitlines() == from_python


def test_python_sees_the_first_failure() -> None:
    with pytest.raises(RecordError, match="the text is 'bad'"):
        list(api.run(WholeToy({"salt": "s"}), [{"id": "a", "text": "x"}, {"id": "b", "text": "bad"}]))


def test_resume_does_only_what_is_new_and_decides_all_anew(tmp_path: Path) -> None:
    source, out = tmp_path / "in.jsonl", tmp_path / "o"
    source.write_bytes(b"\n".join(lines(40)) + b"\n")
    go(source, out, on_error="keep", resume=True)
    grown = lines(50)
    del grown[10], grown[20]
    source.write_bytes(b"\n".join(grown) + b"\n")
    second = WholeToy({"salt": "s", "drop": 10})
    go(source, out, second, on_error="keep", resume=True)
    assert second.learned == 1 and set(second.seen) <= {f"r{i}" for i in range(40, 50)}
    go(source, tmp_path / "fresh", on_error="keep")
    assert out.read_bytes() == (tmp_path / "fresh").read_bytes()


def test_options_that_only_decide_may_change_between_runs(manifest: Path, tmp_path: Path) -> None:
    go(manifest, tmp_path / "o", WholeToy({"salt": "s", "drop": 30}), on_error="keep", resume=True)
    again = WholeToy({"salt": "s", "drop": 2})
    go(manifest, tmp_path / "o", again, on_error="keep", resume=True)
    assert again.seen == []
    go(manifest, tmp_path / "fresh", WholeToy({"salt": "s", "drop": 2}), on_error="keep")
    assert (tmp_path / "o").read_bytes() == (tmp_path / "fresh").read_bytes()
    with pytest.raises(ClipkitError, match="salt was s, is t"):
        go(manifest, tmp_path / "o", WholeToy({"salt": "t"}), on_error="keep", resume=True)


def test_retry_failed_tries_only_those_again(manifest: Path, tmp_path: Path) -> None:
    tried: list[str | None] = []

    class Watching(WholeToy):
        def prepare(self, record: Record) -> Any:
            tried.append(record.id)
            return super().prepare(record)

        def spec(self) -> dict[str, Any]:
            return WholeToy(self.config).spec()

    go(manifest, tmp_path / "o", on_error="keep", resume=True)
    go(manifest, tmp_path / "o", Watching({"salt": "s", "drop": 10}), on_error="keep", retry_failed=True)
    failed = {r["id"] for r in records(tmp_path / "o") if r.get("error", {}).get("type") == "toy-bad"}
    assert failed and set(tried) == failed


def test_nothing_and_nothing_but_failures_are_inputs_too(tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl"
    for text, code in (("", ExitCode.OK), ('{"id":"a","text":"bad"}\n', ExitCode.SOME_FAILED)):
        source.write_text(text)
        stage = WholeToy({"salt": "s"})
        assert go(source, tmp_path / "o", stage, on_error="skip") is code
        assert stage.learned == 1 and (tmp_path / "o").read_bytes() == b""


def test_an_id_that_cannot_be_read_is_that_record_s_failure() -> None:
    given = [Record.parse(b'{"id":1e999,"text":"x"}', "f:1"), Record.parse(b'{"id":"b","text":"y"}', "f:2")]
    stage = WholeToy({"salt": "s"})
    stage.setup()
    stage.process = lambda items: WholeToy.process(stage, [(Record({"id": "?"}), digest) for _, digest in items])  # type: ignore[method-assign]
    stage.setup = lambda: None  # type: ignore[method-assign]
    first, second = api.run(stage, given, on_error="keep")
    assert first["error"]["type"] == "bad-json" and second["rank"] == 0


def test_a_first_pass_that_gives_no_row_is_a_fault() -> None:
    class Dropping(WholeToy):
        def process(self, items: list[Any]) -> Any:
            return [Drop("toy", "x") for _ in items]

    with pytest.raises(TypeError, match=r"Dropping\.process gave Drop, not a Row"):
        list(api.run(Dropping({"salt": "s"}), [{"id": "a", "text": "x"}]))


# Real processes from here on

TOY = [sys.executable, str(Path(__file__).with_name("toy.py"))]


def spawn(*args: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([*TOY, *args, "--whole"], stderr=subprocess.PIPE, stdin=subprocess.DEVNULL)


def finish(*args: str) -> int:
    process = spawn(*args)
    process.communicate(timeout=60)
    return process.returncode


@pytest.mark.slow
def test_killed_at_random_then_resumed_gives_the_same_bytes(tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl"
    source.write_bytes(b"\n".join(lines(300)) + b"\n")
    assert finish(str(source), str(tmp_path / "fresh"), f"--report={tmp_path}/fresh.report") == 3
    out, journal, pick = tmp_path / "o", tmp_path / "o.journal", random.Random(7)
    for _ in range(4):
        target = pick.randrange(1, 4000) + (journal.stat().st_size if journal.exists() else 0)
        process = spawn(str(source), str(out), "--resume", "--delay=0.005")
        while process.poll() is None and not (journal.exists() and journal.stat().st_size >= target):
            time.sleep(0.001)
        assert process.poll() is None, "it ended before it could be killed"
        process.kill()
        process.communicate()
    assert finish(str(source), str(out), "--resume", f"--report={tmp_path}/o.report") == 3
    reports = [json.loads((tmp_path / f"{name}.report").read_text()) for name in ("o", "fresh")]
    assert reports[0].pop("run")["reused"] > 0 and reports[1].pop("run")["reused"] == 0
    assert reports[0] == reports[1]
    for name in ("", ".rejects"):
        assert (tmp_path / f"o{name}").read_bytes() == (tmp_path / f"fresh{name}").read_bytes()


def test_a_signal_in_the_first_pass_stops_cleanly(tmp_path: Path) -> None:
    source, out, journal = tmp_path / "in.jsonl", tmp_path / "o", tmp_path / "o.journal"
    source.write_bytes(b"\n".join(lines(400)) + b"\n")
    process = spawn(str(source), str(out), "--delay=0.01")
    deadline = time.monotonic() + 30
    while not (journal.exists() and journal.stat().st_size > 2000) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 143 and b"--resume" in err and b"Traceback" not in err
    assert b"only what it has read is kept" in err, "what it learns from all begins anew, a training above all"
    assert not out.exists() and not (tmp_path / "o.part").exists()
    assert finish(str(source), str(out), "--resume") == 3


class Summing(WholeStage, Toy):
    """Writes how often each word came, instead of records."""

    mergeable = True

    @property
    def summarises(self) -> bool:
        return True

    def process(self, items: list[Any]) -> list[Outcome]:
        return [Row(record["text"].encode()) for record, _ in items]

    def learn(self, rows: Rows) -> None:
        self.words = Counter(data.decode() for data in rows.data())

    def summary(self) -> Iterator[Record]:
        for word, count in sorted(self.words.items()):
            yield Record({"word": word, "count": count})


@pytest.mark.parametrize("policy", ["skip", "keep"])
def test_a_stage_may_write_a_summary_instead_of_records(tmp_path: Path, policy: str) -> None:
    lines = [{"text": "a"}, {"text": "bad"}, {"text": "b"}, {"text": "a", "error": {"type": "old"}}, {"text": "a"}]
    path = tmp_path / "in.jsonl"
    path.write_text("".join(json.dumps({"id": f"r{n}", **line}) + "\n" for n, line in enumerate(lines)))
    out, rejects, report = (tmp_path / name for name in ("out.jsonl", "rejects.jsonl", "report.json"))
    options = RunOptions(out=str(out), on_error=policy, rejects=str(rejects), report=str(report), resume=True)
    for _ in range(2):  # the second from the journal alone
        code = run(Summing({"salt": ""}), open_source(SourceOptions(paths=(str(path),))), options)
        assert code == ExitCode.SOME_FAILED
        assert [json.loads(line) for line in out.read_text().splitlines()] == [
            {"word": "a", "count": 2},
            {"word": "b", "count": 1},
        ]
        assert [json.loads(line)["id"] for line in rejects.read_text().splitlines()] == ["r1"]
        counts = json.loads(report.read_text())["counts"]
        assert counts == {"read": 5, "kept": 3, "dropped": 0, "failed": 1, "passed": 1}
    assert [r["word"] for r in api.run(Summing({"salt": ""}), [Record({"text": "x"})])] == ["x"]


class Undecidable(WholeToy):
    """Like any other, but for what it says of all it has read."""

    def learn(self, rows: Rows) -> None:
        raise self.config.get("error", ClipkitError("there is nothing to tell apart"))

    def spec(self) -> dict[str, Any]:
        return {"stage": "tests.stream.toy:WholeToy"}


def test_what_nothing_can_be_made_of_need_not_be_gone_on_with(manifest: Path, tmp_path: Path) -> None:
    out, journal = tmp_path / "out.jsonl", tmp_path / "out.jsonl.journal"
    with pytest.raises(ClipkitError, match="tell apart") as caught:
        go(manifest, out, Undecidable({"salt": "s"}), on_error="skip")
    assert not journal.exists() and not caught.value.hint
    with pytest.raises(ClipkitError, match="tell apart"):
        go(manifest, out, Undecidable({"salt": "s"}), on_error="skip", resume=True)
    assert go(manifest, out, stage := WholeToy({"salt": "s"}), on_error="skip", resume=True) == ExitCode.SOME_FAILED
    assert not stage.seen, "who asks for a journal has it"


def test_a_disk_that_is_full_while_it_decides_is_no_such_thing(manifest: Path, tmp_path: Path) -> None:
    full = Undecidable({"salt": "s", "error": OSError(28, "No space left on device")})
    with pytest.raises(ClipkitError, match="no space left") as caught:
        go(manifest, tmp_path / "out.jsonl", full, on_error="skip")
    assert (tmp_path / "out.jsonl.journal").exists() and "go on with" in str(caught.value.hint)
