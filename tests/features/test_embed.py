"""`clipkit embed` and `clipkit cache`, and the stage behind them, with the carried model."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from clipkit import api
from clipkit.features.inline import unit, unpack
from clipkit.features.store import Store
from clipkit.stages.embed import Embed
from clipkit.stream.record import Record
from clipkit.stream.stage import load_stage


def paint(folder: Path, count: int) -> list[str]:
    folder.mkdir(exist_ok=True)
    for seed in range(count):
        coarse = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((64, 48)).save(folder / f"{seed}.jpg")
    return [f"{seed}.jpg" for seed in range(count)]


def embed(records: list[dict[str, Any]], folder: Path, on_error: Any = "keep", **config: Any) -> list[Record]:
    stage = Embed({"model": "lite", **config}, {"root": str(folder)})
    return list(api.run(stage, records, on_error=on_error, workers=1))


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_images_texts_and_both(tmp_path: Path) -> None:
    paint(tmp_path, 2)
    both, image, text = embed(
        [{"id": "a", "image": "0.jpg", "text": "red"}, {"id": "b", "image": "1.jpg"}, {"id": "c", "text": "red"}],
        tmp_path,
    )
    assert [list(r["emb"]) for r in (both, image, text)] == [["image", "text"], ["image"], ["text"]]
    assert both["emb"]["text"] == text["emb"]["text"]
    row = unpack(both["emb"]["image"])
    assert row.shape == (512,)
    assert abs(np.linalg.norm(row.astype(float)) - 1) < 1e-3
    assert both["via"]["emb"].startswith("embed/lite@")


def test_only_what_was_asked_for(tmp_path: Path) -> None:
    paint(tmp_path, 1)
    given = [{"id": "a", "image": "0.jpg", "text": "red"}]
    (record,) = embed(given, tmp_path, text=False, backbone=True)
    assert list(record["emb"]) == ["image", "backbone"]
    assert unpack(record["emb"]["backbone"]).shape == (1280,)
    (record,) = embed([{"id": "a", "image": "absent.jpg", "text": "red"}], tmp_path, image=False)
    assert list(record["emb"]) == ["text"]


def test_what_cannot_be_embedded_is_the_record_s_error(tmp_path: Path) -> None:
    paint(tmp_path, 1)
    (tmp_path / "bad.jpg").write_bytes(b"no image")
    records = [
        {"id": "none"},
        {"id": "bad", "image": "bad.jpg", "text": "fine"},
        {"id": "odd", "image": 7},
        {"id": "empty", "image": "", "text": None},
        {"id": "good", "image": "0.jpg"},
    ]
    kinds = [record.lookup("error.type") for record in embed(records, tmp_path)]
    assert kinds == ["missing-field", "image-format", "bad-field", "missing-field", None]
    (record,) = embed([{"text": "nameless"}], tmp_path, store=True)
    assert record["error"]["type"] == "missing-id"
    (record,) = embed([{"text": "nameless"}], tmp_path)
    assert "error" not in record


def test_other_entries_of_emb_and_other_fields_stay(tmp_path: Path) -> None:
    paint(tmp_path, 1)
    given = {"id": "a", "image": "0.jpg", "emb": {"audio": "x#0:1", "text": "old#0:0"}, "mine": [1]}
    (record,) = embed([given], tmp_path)
    assert list(record["emb"]) == ["audio", "image"]  # the old text feature is not of this model
    assert record["mine"] == [1]


def test_a_fallback_id_is_written_out(tmp_path: Path) -> None:
    paint(tmp_path, 1)
    record = Record({"image": "0.jpg"}, key="0.jpg")
    (kept,) = api.run(Embed({"model": "lite"}, {"root": str(tmp_path)}), [record], workers=1)
    assert kept["id"] == "0.jpg"


def test_the_stage_gives_equal_bytes_when_built_from_its_spec(tmp_path: Path) -> None:
    paint(tmp_path, 3)
    records = [{"id": str(n), "image": f"{n}.jpg", "text": f"text {n}"} for n in range(3)]
    stage = Embed({"model": "lite"}, {"root": str(tmp_path)})
    twin = load_stage(json.loads(json.dumps(stage.spec())))
    lines = [[record.encode() for record in api.run(s, [dict(r) for r in records], workers=1)] for s in (stage, twin)]
    assert lines[0] == lines[1]


# The verb


def test_a_store_holds_what_inline_records_hold(tmp_path: Path, clipkit: Any) -> None:
    paint(tmp_path / "photos", 5)
    (tmp_path / "photos" / "broken.jpg").write_bytes(b"\xff\xd8 not really")
    (tmp_path / "photos" / "3.txt").write_text("a caption")
    stored = clipkit("embed", "photos", "-o", "store", "--backbone")
    inline = clipkit("embed", "photos", "--backbone")
    assert (stored.code, stored.stdout) == (3, "")  # one record failed
    records = [json.loads(line) for line in inline.lines]
    good = [record for record in records if "error" not in record]
    assert (len(records), len(good)) == (6, 5)
    store = Store(tmp_path / "store")
    assert len(store) == 5
    for output in ("image", "backbone"):
        rows = store.features([record["id"] for record in good], output)
        exact = np.stack([unpack(record["emb"][output]) for record in good])
        assert np.array_equal(rows, unit(exact) if output == "image" else exact.astype(np.float32))
    assert np.array_equal(
        store.features(["3.jpg"], "text")[0], unit(unpack(next(r for r in good if r["id"] == "3.jpg")["emb"]["text"]))
    )
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "photos") == ["store"]


def test_where_features_go_follows_from_o(tmp_path: Path, clipkit: Any) -> None:
    paint(tmp_path / "photos", 1)
    assert clipkit("embed", "photos", "-o", "out.jsonl").code == 0
    assert "emb" in json.loads((tmp_path / "out.jsonl").read_text())
    assert clipkit("embed", "photos", "--emb", "inline", "-o", "odd").code == 0
    assert "emb" in json.loads((tmp_path / "odd").read_text())
    for words, said in (
        (["--emb", "store"], "needs -o DIR"),
        (["--backbone", "--only", "text"], "--only text leaves them out"),
        (["-o", "photos"], "not a feature store"),
    ):
        result = clipkit("embed", "photos", *words)
        assert (result.code, result.stdout) == (2, "")
        assert said in result.stderr
    assert (tmp_path / "photos" / "0.jpg").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
def test_a_killed_run_resumes_to_the_same_store(tmp_path: Path, clipkit: Any) -> None:
    names = paint(tmp_path / "photos", 24)
    given = "".join(f"photos/{name}\n" for name in names)
    assert clipkit("embed", "-", "-o", "fresh", stdin=given).code == 0
    command = [sys.executable, "-P", "-m", "clipkit", "embed", "-", "-o", "store", "--workers", "1", "--no-cache"]
    killed = subprocess.Popen(command, cwd=tmp_path, stdin=subprocess.PIPE)
    assert killed.stdin is not None
    killed.stdin.write("".join(f"photos/{name}\n" for name in names[:9]).encode())
    killed.stdin.flush()
    journal = tmp_path / "store.journal"
    deadline = time.monotonic() + 60
    while (not journal.exists() or journal.stat().st_size < 4 * 1500) and time.monotonic() < deadline:
        time.sleep(0.02)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert not (tmp_path / "store").exists()
    assert (tmp_path / "store.part").exists()
    assert clipkit("embed", "-", "-o", "store", stdin=given).code == 1  # an unfinished run: says so
    report = clipkit("embed", "-", "-o", "store", "--resume", "--report", "report.json", stdin=given)
    assert report.code == 0
    assert json.loads((tmp_path / "report.json").read_text())["run"]["reused"] >= 4
    assert files(tmp_path / "store") == files(tmp_path / "fresh")


def test_the_cache_is_shown_and_cleared(tmp_path: Path, clipkit: Any) -> None:
    paint(tmp_path / "photos", 4)
    env = {"CLIPKIT_CACHE": str(tmp_path / "cache")}
    empty = json.loads(clipkit("cache", "--json", env=env).stdout)
    assert (empty["bytes"], empty["rows"]) == (0, {})
    assert not (tmp_path / "cache").exists()
    cold = clipkit("embed", "photos", env=env)
    (label, count), *others = json.loads(clipkit("cache", "--json", env=env).stdout)["rows"].items()
    assert (count, others) == (4, [])
    assert label.startswith("lite@") and label.endswith(" joint")
    shown = clipkit("cache", env=env)
    assert str(tmp_path / "cache") in shown.stdout
    assert clipkit("embed", "photos", env=env).stdout == cold.stdout
    assert clipkit("cache", "clear", env=env).stdout.startswith("removed 4 vectors")
    assert json.loads(clipkit("cache", "--json", env=env).stdout)["rows"] == {}
    assert clipkit("embed", "photos", "--no-cache", env=env).stdout == cold.stdout
    assert json.loads(clipkit("cache", "--json", env=env).stdout)["rows"] == {}


def test_a_cache_that_cannot_be_used_costs_one_line(tmp_path: Path, clipkit: Any) -> None:
    paint(tmp_path / "photos", 2)
    (tmp_path / "file").write_text("")
    result = clipkit("embed", "photos", env={"CLIPKIT_CACHE": str(tmp_path / "file")})
    assert result.code == 0
    assert len(result.lines) == 2
    assert len(result.stderr.splitlines()) == 1
    assert result.stderr.startswith("clipkit: no cache in this run: ")
