"""train-adapter as a user meets it: folders, splits, kills, broken images, wrong words, terminals."""

from __future__ import annotations

import io
import json
import os
import pty
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from clipkit import cli
from clipkit.methods import ADAPTERS
from tests.conftest import Result
from tests.killing import killed

SHOTS = 6
KINDS = ("a plain, flat one", "noise", "streifen-ü")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """train/CLASS/N.png of three classes, test/CLASS/N.png, others/CLASS/N.png, and manifest.jsonl of the first."""
    root = tmp_path_factory.mktemp("data")
    lines = []
    for part, count in (("train", SHOTS), ("test", 2), ("others", 2)):
        for number in range(count):
            noise = np.random.default_rng([number, len(part)]).integers(0, 256, (48, 64, 3), dtype=np.uint8)
            flat, striped = np.full_like(noise, noise[0, 0]), np.tile(noise[:1], (48, 1, 1))
            shown = {"grey": flat.mean(2, keepdims=True).repeat(3, 2).astype(np.uint8), "rows": striped[::-1] // 2}
            for name, pixels in shown.items() if part == "others" else zip(KINDS, (flat, noise, striped), strict=True):
                path = root / part / name / f"{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(path)
                if part == "train":
                    lines.append(
                        json.dumps({"id": f"{name}/{number}.png", "image": f"train/{name}/{number}.png", "label": name})
                    )
    (root / "manifest.jsonl").write_text("\n".join(lines) + "\n")
    return root


@pytest.fixture
def here(data: Path, tmp_path: Path) -> Path:
    """A copy of it that a test may change."""
    return Path(shutil.copytree(data, tmp_path / "here"))


@pytest.fixture
def clipkit(here: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Any:
    """Run `clipkit ARGS` there, in this process: most of a run of its own would be imports."""
    monkeypatch.chdir(here)

    def run(*args: str | Path, stdin: str | None = None) -> Result:
        if stdin is not None:
            monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin.encode())))
        code = cli.run([*map(str, args)])
        sys.stdout.flush()
        return Result(code, *capfd.readouterr())

    return run


def both(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_a_folder_of_folders_to_an_adapter_that_apply_takes(here: Path, clipkit: Any) -> None:
    done = clipkit("train-adapter", "train", "--test", "test", "--forgetting", "others", "-o", "my.adapter")
    assert done.code == 0, done.stderr
    (said,) = map(json.loads, done.lines)
    assert said["adapter"] == "my.adapter" and said["method"] == "gda" and said["classes"] == 3
    assert said["images"] == {"train": 18, "test": 6, "forgetting": 4}
    assert said["forgetting"]["on"] == "other images" and said["forgetting"]["images"] == 4
    assert said["accuracy"]["test"]["images"] == 6
    assert sorted(os.listdir(here)) == ["manifest.jsonl", "my.adapter", "others", "test", "train"]
    applied = clipkit("apply", "my.adapter", "test", "--label-from", "folder")
    found = [json.loads(line) for line in applied.lines]
    right = sum(record["pred"]["label"] == record["label"] for record in found) / len(found)
    assert right == pytest.approx(said["accuracy"]["test"]["adapted"], abs=1e-6)


def test_the_same_bytes_from_any_source_in_any_order(here: Path, clipkit: Any) -> None:
    lines = (here / "manifest.jsonl").read_text().splitlines()
    (here / "backwards.jsonl").write_text("\n".join(lines[::-1]))
    options = ["--method", "ridge", "--shots", "4", "--seeds", "2"]
    for name, source in (("a", "train"), ("b", "manifest.jsonl"), ("c", "backwards.jsonl")):
        done = clipkit("train-adapter", source, *options, "-o", name, "--workers", "2")
        assert done.code == 0, done.stderr
    assert both(here / "a") == both(here / "b") == both(here / "c")
    assert str(here) not in (here / "a/adapter.json").read_text()


def test_a_broken_image_is_told_and_the_rest_is_learned_from(here: Path, clipkit: Any) -> None:
    (here / "train/noise/0.png").write_bytes(b"\x89PNG\r\n\x1a\n nothing")
    done = clipkit("train-adapter", "train", "-o", "my.adapter", "--rejects", "rejects.jsonl", "--report", "r.json")
    assert done.code == 3 and "18 read, 17 counted, 1 failed" in done.stderr
    (left,) = map(json.loads, (here / "rejects.jsonl").read_text().splitlines())
    assert left["id"] == "noise/0.png" and left["error"]["type"] == "image-broken"
    report = json.loads((here / "r.json").read_text())
    assert report["facts"]["images"] == {"train": 17} and (here / "my.adapter/adapter.json").exists()


def test_a_run_that_fails_leaves_the_adapter_that_was_there(here: Path, clipkit: Any) -> None:
    assert clipkit("train-adapter", "train", "-o", "my.adapter").code == 0
    before = both(here / "my.adapter")
    done = clipkit("train-adapter", "train/noise", "-o", "my.adapter")
    assert done.code == 1 and "nothing to tell apart" in done.stderr
    assert both(here / "my.adapter") == before
    assert sorted(os.listdir(here)) == ["manifest.jsonl", "my.adapter", "others", "test", "train"]
    assert clipkit("train-adapter", "train", "--method", "ridge", "-o", "my.adapter").code == 0
    assert json.loads((here / "my.adapter/adapter.json").read_text())["method"] == "ridge"


@pytest.mark.slow
def test_killed_and_resumed_it_is_as_if_nothing_had_been(here: Path, clipkit: Any) -> None:
    given = (here / "manifest.jsonl").read_text()
    args = ["train-adapter", "--shots", "5", "--no-cache"]
    killed(args, "".join(given.splitlines(keepends=True)[:9]), here, after=9_000)
    done = clipkit(*args, "-o", "out.jsonl", "--resume", "--report", "r.json", stdin=given)
    assert done.code == 0, done.stderr
    assert json.loads((here / "r.json").read_text())["run"]["reused"] > 0
    assert clipkit(*args, "-o", "whole", stdin=given).code == 0
    assert both(here / "out.jsonl") == both(here / "whole")


def test_features_of_a_store_instead_of_images(here: Path, clipkit: Any) -> None:
    assert clipkit("embed", "manifest.jsonl", "-o", "store").code == 0
    done = clipkit("train-adapter", "--features", "store", "-o", "my.adapter")
    assert done.code == 1 and "no backbone features" in done.stderr and "--backbone" in done.stderr
    shutil.rmtree(here / "store")
    assert clipkit("embed", "manifest.jsonl", "--backbone", "-o", "store").code == 0
    shutil.rmtree(here / "train")
    for name, source in (("alone", []), ("named", ["manifest.jsonl"])):
        done = clipkit("train-adapter", *source, "--features", "store", "-o", name, "--restart")
        assert done.code == 0, done.stderr
        assert json.loads(done.stdout)["images"] == {"train": 18}
    assert both(here / "alone") == both(here / "named")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
@pytest.mark.parametrize(("to", "code"), [("closed", 141), ("/dev/full", 1)])
def test_once_the_adapter_is_there_nobody_need_hear_of_it(here: Path, to: str, code: int) -> None:
    command = [sys.executable, "-P", "-m", "clipkit", "train-adapter", "train", "--method", "ridge", "-o", "my.adapter"]
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "wb") if to == "closed" else open(to, "wb") as out:
        done = subprocess.run(command, cwd=here, stdout=out, stderr=subprocess.PIPE, text=True)
    assert done.returncode == code and "Traceback" not in done.stderr and "--resume" not in done.stderr
    assert sorted(os.listdir(here)) == ["manifest.jsonl", "my.adapter", "others", "test", "train"]


def test_a_folder_of_splits_is_learned_from_and_measured_on_as_its_folders_say(here: Path, clipkit: Any) -> None:
    (here / "photos").mkdir()
    for name in ("train", "test"):
        (here / name).rename(here / "photos" / name)
    done = clipkit("train-adapter", "photos", "--method", "ridge", "-o", "my.adapter")
    assert done.code == 0 and "photos/test: images for test, by the folder's name" in done.stderr
    assert json.loads(done.stdout)["images"] == {"train": 18, "test": 6}
    done = clipkit("train-adapter", "photos/train", "--test", "photos", "--method", "ridge", "-o", "my.adapter")
    assert json.loads(done.stdout)["images"] == {"train": 18, "test": 24} and "folder's name" not in done.stderr
    quiet = clipkit("train-adapter", "photos", "--method", "ridge", "-o", "my.adapter", "-q")
    assert quiet.code == 0 and not quiet.stderr


def test_an_image_that_is_learned_from_and_measured_on_is_told(here: Path, clipkit: Any) -> None:
    shutil.copy(here / "train/noise/0.png", here / "test/noise/7.png")
    done = clipkit("train-adapter", "train", "--test", "test", "-o", "my.adapter")
    assert done.code == 0 and "test images" in done.stderr and "noise/0.png" in done.stderr


@pytest.mark.parametrize("split", ["val", "test", "forgetting"])
def test_a_source_without_an_image_for_what_it_was_named_is_no_silence(split: str, here: Path, clipkit: Any) -> None:
    (here / "none").mkdir()
    (here / "broken/noise").mkdir(parents=True)
    (here / "broken/noise/0.png").write_bytes(b"no picture")
    for name in ("none", "broken"):
        done = clipkit("train-adapter", "train", f"--{split}", name, "--method", "ridge", "-o", "my.adapter")
        assert done.code == 1 and f"no image for {split} in {name}" in done.stderr, done.stderr
    assert sorted(os.listdir(here)) == ["broken", "manifest.jsonl", "none", "others", "test", "train"]


def test_a_run_that_failed_before_anything_was_read_leaves_nothing_to_go_on_with(here: Path, clipkit: Any) -> None:
    (here / "my").mkdir()
    assert clipkit("embed", "others", "-o", "feats", "--backbone", "--no-cache", "-q").code == 0
    failed = clipkit("train-adapter", "train", "--features", "feats", "--method", "ridge", "-o", "my/a")
    assert failed.code == 1 and "has no record" in failed.stderr and "--resume" not in failed.stderr
    assert not list((here / "my").iterdir())
    assert clipkit("train-adapter", "train", "--method", "ridge", "-o", "my/a").code == 0


def test_few_images_are_told_and_nothing_is_tuned(here: Path, clipkit: Any) -> None:
    for path in here.glob("train/noise/[1-5].png"):
        path.unlink()
    done = clipkit("train-adapter", "train", "--shots", "3", "-o", "my.adapter")
    assert done.code == 0 and "fewer than 3 images of 'noise' (1)" in done.stderr and "untuned" in done.stderr


def test_labels_as_a_list_fix_the_classes_and_their_order(here: Path, clipkit: Any) -> None:
    (here / "labels.json").write_text(json.dumps({KINDS[2]: ["stripes"], KINDS[0]: ["a plain colour", "one colour"]}))
    done = clipkit("train-adapter", "train", "--labels", "@labels.json", "-o", "my.adapter", "--lenient")
    assert done.code == 0 and json.loads(done.stdout)["images"] == {"train": 12}
    said = json.loads((here / "my.adapter/adapter.json").read_text())
    assert said["classes"] == [KINDS[2], KINDS[0]] and said["prompts"] == [
        ["stripes"],
        ["a plain colour", "one colour"],
    ]
    (here / "more.txt").write_text("\n".join([*KINDS, "a cow"]))
    done = clipkit("train-adapter", "train", "--labels", "@more.txt", "-o", "other", "--method", "prototypes")
    assert done.code == 2 and "no image of 'a cow'" in done.stderr
    done = clipkit("train-adapter", "train", "--labels", "@more.txt", "-o", "other")
    assert done.code == 0 and "no training image of 'a cow'\n" in done.stderr
    done = clipkit("train-adapter", "train", "--labels", f"NOISE,{KINDS[2]}", "-o", "other", "--lenient")
    assert "no training image of 'NOISE': there are images of 'noise', not among --labels" in done.stderr


def test_on_a_terminal_a_table_and_what_to_do_next(here: Path) -> None:
    main, side = pty.openpty()
    command = [
        sys.executable,
        "-P",
        "-m",
        "clipkit",
        "train-adapter",
        "train",
        "--test",
        "test",
        "--forgetting",
        "others",
    ]
    command += ["--seeds", "2", "--shots", "4", "-o", "my.adapter"]
    env = {**os.environ, "COLUMNS": "100", "NO_COLOR": "1", "TERM": "xterm"}
    process = subprocess.Popen(command, cwd=here, stdout=side, stderr=side, env=env)
    os.close(side)
    shown = b""
    while True:
        try:
            piece = os.read(main, 65536)
        except OSError:
            break
        if not piece:
            break
        shown += piece
    os.close(main)
    assert process.wait() == 0
    text = shown.decode().replace("\r", "")
    head = next(line for line in text.splitlines() if line.endswith("others (4)"))
    assert head.split() == ["held-out", "(6)", "test", "(6)", "others", "(4)"]
    assert any(line.startswith("zero-shot ") for line in text.splitlines())
    assert "2 draws, mean" in text and " ± " in text
    assert "gda: 12 images of 3 classes, 4 of each" in text
    assert "use it: clipkit apply my.adapter SOURCE" in text


def test_all_methods_are_in_the_help(clipkit: Any) -> None:
    text = " ".join(clipkit("train-adapter", "--help").stdout.split())
    assert all(entry.name in text for entry in ADAPTERS)


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["-o", "-"], "name a folder: -o DIR"),
        (["-o", "nowhere/my.adapter"], "mkdir -p"),
        (["-o", "train"], "exists and is not an adapter"),
        (["-o", "x", "--shots", "0"], "--shots"),
        (["-o", "x", "--method", "lor"], "did you mean lora"),
        (["-o", "x", "--labels", "cats"], "nothing to tell apart"),
        (["-o", "x", "--shard", "1/2"], "a part cannot decide for the whole"),
        (["-o", "x", "--val", "-", "--test", "-"], "standard input (-) is named twice"),
        (["-o", "x", "--forgetting", "train"], "of classes that are learned: 'a plain, flat one'"),
        (["-o", "x", "--update", "nowhere"], "there is no such folder"),
        (["-o", "x", "--update", "y", "--method", "gda"], "--update is for the method prototypes"),
    ],
)
def test_wrong_words(args: list[str], said: str, here: Path, clipkit: Any) -> None:
    done = clipkit("train-adapter", "train", *args)
    assert done.code in (1, 2) and said in done.stderr and "Traceback" not in done.stderr
    assert not (here / "x").exists()
