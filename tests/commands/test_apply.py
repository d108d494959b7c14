"""`clipkit apply` and `clipkit zeroshot --adapter` as a user meets them: every method, kills, caches, wrong words."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from clipkit import cli
from tests.conftest import Runner
from tests.fitted import CLASSES, FROM_FEATURES, pictures, saved
from tests.killing import killed


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `photos/`, one of them broken, and `parts.adapter`."""
    root = tmp_path_factory.mktemp("apply")
    made = pictures(root / "photos")
    saved("gda", made, root / "parts.adapter")
    (root / "photos/broken.png").write_bytes(made[0].read_bytes()[:60])
    return root


def references(here: Path) -> list[str]:
    return sorted(str(path.relative_to(here)) for path in (here / "photos").iterdir())


def records(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


@pytest.mark.parametrize("method", FROM_FEATURES)
def test_every_method_through_the_command_line(
    here: Path, method: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos = [path for path in sorted((here / "photos").iterdir()) if path.name != "broken.png"]
    adapter = str(saved(method, photos, tmp_path / "an.adapter"))
    sources = ["-q", "--no-cache", *map(str, photos)]
    assert cli.run(["apply", adapter, "--top-k", "2", *sources]) == 0
    out = capsys.readouterr().out
    found = records(out)
    assert [len(record["pred"]["topk"]) for record in found] == [2] * len(photos)
    right = sum(record["pred"]["label"] == Path(record["image"]).name.split("-")[0] for record in found)
    assert right >= len(photos) - 2, "it is asked about what it was fitted on"
    assert all(record["via"]["pred"].startswith(f"{method}/") for record in found)
    assert cli.run(["zeroshot", "--adapter", adapter, "--top-k", "2", *sources]) == 0
    assert capsys.readouterr().out == out


def test_what_train_adapter_wrote(here: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = [path for path in sorted((here / "photos").iterdir()) if path.name != "broken.png"]
    lines = [json.dumps({"id": p.name, "image": str(p), "label": p.name.split("-")[0]}) for p in given]
    (tmp_path / "train.jsonl").write_text("\n".join(lines))
    adapter = str(tmp_path / "parts.adapter")
    assert cli.run(["train-adapter", str(tmp_path / "train.jsonl"), "--no-cache", "-q", "-o", adapter]) == 0
    capsys.readouterr()
    assert cli.run(["apply", adapter, str(tmp_path / "train.jsonl"), "--no-cache", "-q"]) == 0
    found = records(capsys.readouterr().out)
    assert [record["pred"]["label"] for record in found] == [record["label"] for record in found]


def test_a_broken_image_is_kept_with_its_reason(here: Path, clipkit: Runner) -> None:
    done = clipkit("apply", "parts.adapter", "photos/", "--no-cache", cwd=here)
    assert done.code == 3
    failed = [record for record in records(done.stdout) if "error" in record]
    assert [record["id"] for record in failed] == ["broken.png"] and "pred" not in failed[0]
    assert "13 read, 12 kept, 1 failed" in done.stderr


def test_the_adapter_says_which_model_not_the_default(here: Path, clipkit: Runner) -> None:
    words = ["apply", "parts.adapter", "photos/noise-0.png", "--no-cache"]
    usual = clipkit(*words, cwd=here)
    assert clipkit(*words, cwd=here, env={"CLIPKIT_MODEL": "another"}).stdout == usual.stdout != ""
    refused = clipkit("zeroshot", "--labels", "a,b", cwd=here, env={"CLIPKIT_MODEL": "another"}, stdin="")
    assert refused.code == 2, "that default would be taken"


def test_warm_is_cold(here: Path, clipkit: Runner) -> None:
    words = ["apply", "parts.adapter", "photos/", "-q", "--lenient"]
    cold = clipkit(*words, "--no-cache", cwd=here)
    filling, warm = (clipkit(*words, cwd=here) for _ in range(2))
    assert cold.code == 0 and cold.stdout == filling.stdout == warm.stdout


@pytest.mark.slow
def test_killed_and_resumed(here: Path, tmp_path: Path, clipkit: Runner) -> None:
    words = ["apply", str(here / "parts.adapter"), "--root", str(here), "--no-cache", "--workers", "1"]
    names = references(here)
    given = "".join(f"{name}\n" for name in names)
    fresh = clipkit(*words, "-o", "fresh.jsonl", stdin=given)
    assert fresh.code == 3
    killed(words, "".join(f"{name}\n" for name in names[:6]), tmp_path, after=1200)
    resumed = clipkit(*words, "-o", "out.jsonl", "--resume", "--report", "r.json", stdin=given)
    assert resumed.code == 3, resumed.stderr
    assert json.loads((tmp_path / "r.json").read_text())["run"]["reused"] >= 1
    assert (tmp_path / "out.jsonl").read_bytes() == (tmp_path / "fresh.jsonl").read_bytes()
    moved = shutil.copytree(here / "parts.adapter", tmp_path / "moved.adapter")
    again = clipkit("apply", str(moved), *words[2:], "-o", "out.jsonl", "--resume", stdin=given)
    assert again.code == 3, "the same adapter, wherever it lies"
    blended = clipkit(*words, "--blend", "0.5", "-o", "out.jsonl", "--resume", stdin=given)
    assert blended.code == 1 and "blend was" in blended.stderr and "--restart" in blended.stderr
    other = str(saved("ridge", sorted((here / "photos").glob("*-*.png")), tmp_path / "other.adapter"))
    changed = clipkit("apply", other, *words[2:], "-o", "out.jsonl", "--resume", stdin=given)
    assert changed.code == 1 and "adapter was" in changed.stderr


def test_nothing_comes_of_nothing(here: Path, clipkit: Runner) -> None:
    done = clipkit("apply", "parts.adapter", "-q", stdin="", cwd=here)
    assert (done.code, done.stdout, done.stderr) == (0, "", "")
    assert clipkit("apply", "parts.adapter", "-q", "-e", stdin="", cwd=here).code == 4


def test_labels_beside_the_adapters(here: Path, clipkit: Runner) -> None:
    labels = ["--labels", "noise,a wheel", "--no-cache"]
    done = clipkit("zeroshot", "photos/noise-0.png", "--adapter", "parts.adapter", *labels, cwd=here)
    assert done.code == 0, done.stderr
    assert {name for name, _ in records(done.stdout)[0]["pred"]["topk"]} == {"noise", "a wheel"}
    assert "the adapter doesn't know 'a wheel'" in done.stderr


def test_a_new_prediction_takes_the_place_of_an_old_one(here: Path, clipkit: Runner) -> None:
    plain = clipkit("zeroshot", "photos/noise-0.png", "--labels", ",".join(CLASSES), "--no-cache", cwd=here)
    done = clipkit("apply", "parts.adapter", "--no-cache", "-q", stdin=plain.stdout, cwd=here)
    (record,) = records(done.stdout)
    assert record["via"]["pred"].startswith("gda/") and record["pred"] != records(plain.stdout)[0]["pred"]


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["apply"], 2, "missing argument 'ADAPTER'"),
        (["apply", "part.adapter"], 1, "did you mean parts.adapter?"),
        (["apply", "photos", "parts.adapter"], 2, "the adapter comes before the SOURCE"),
        (["apply", "photos/noise-0.png"], 2, "photos/noise-0.png is read as the adapter"),
        (["apply", "parts.adapter", "photos", "--blend", "1.5"], 2, "--blend"),
        (["apply", "parts.adapter", "photos", "--model", "nope"], 2, "no model 'nope'"),
        (["apply", "parts.adapter", "photos", "-o", "parts.adapter/adapter.json"], 2, "-o and ADAPTER name one file"),
        (["zeroshot", "photos"], 2, "--labels"),
        (["zeroshot", "photos", "--labels", "a,b", "--blend", "0.5"], 2, "--adapter"),
        (["zeroshot", "photos", "--adapter", "parts.adapter", "--template", "a {}"], 2, "--labels"),
        (["zeroshot", "photos", "--adapter", "parts.adapter", "--labels", "a,b"], 2, "knows none of the labels"),
        (["zeroshot", "photos", "--adapter", "photos"], 1, "photos is no adapter"),
    ],
)
def test_a_wrong_command_line_is_one_line_and_a_hint(
    here: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    code: int,
    said: str,
) -> None:
    monkeypatch.chdir(here)
    before = (here / "parts.adapter/adapter.json").read_bytes()
    assert cli.run(words) == code
    out, err = capsys.readouterr()
    assert out == "" and said in err and len(err.splitlines()) <= 2, err
    assert (here / "parts.adapter/adapter.json").read_bytes() == before
