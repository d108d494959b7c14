"""`clipkit export` from the outside: the gate, what is left behind, what is said."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from clipkit.completion import candidates
from clipkit.exporting import shown
from clipkit.exporting.base import Wish
from clipkit.exporting.running import Export, export
from clipkit.exporting.samples import Samples
from tests.cli.plugin import install
from tests.conftest import InProcess, Runner
from tests.fitted import pictures, saved

# A target of another package: lite's image network, whose features it gets wrong in the third digit.
WRONG = '''
import numpy as np

from clipkit.exporting.base import Target, Written
from clipkit.models.load import load


class Wrong(Target):
    """lite, but not quite."""

    def write(self, job):
        (job.folder / "network.bin").write_bytes(bytes(100))
        return Written(precision="wrong")

    def open(self, folder):
        assert (folder / "network.bin").is_file()
        encoder = load("lite")
        right = encoder.encode_images

        def encode_images(batch, **more):
            joint, behind = right(batch, **more)
            off = joint + np.float32(0.004) * np.sign(np.sin(np.arange(joint.shape[1])))
            return (off / np.linalg.norm(off, axis=1, keepdims=True)).astype(np.float32), behind

        encoder.encode_images = encode_images
        return encoder


class Missing(Wrong):
    """What needs a package that nobody has."""

    packages = {"no_such_package": "pip install no-such-package"}
'''
POINTS = "[clipkit.exporters]\nwrong = clipkit_wrong_target:Wrong\nmissing = clipkit_wrong_target:Missing\n"


@pytest.fixture
def site(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("plugin")
    return {"PYTHONPATH": str(install(folder, monkeypatch, "clipkit-wrong", {"target": WRONG}, POINTS))}


def test_a_wrong_target_fails_the_gate(
    clipkit: Runner, site: dict[str, str], tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """In real processes, one for each side: the export is opened by its target there too."""
    photos = pictures(tmp_path_factory.mktemp("given"))[0].parent
    asked = ("export", "--tower", "image", "--to", "wrong", "--samples", photos, "-o", "out")
    done = clipkit(*asked, env=site)
    assert (done.code, done.stdout) == (1, "")
    *table, said, hint = done.stderr.splitlines()
    assert "the export is not true to its model: the least cosine of image features is 0.99" in said
    assert said.endswith(", below 0.9999") or ", below 0.9999; " in said
    assert hint.startswith("hint: nothing was written")
    assert any(line.startswith("cosine of pictures, least") and line.endswith(" 0.9999") for line in table)
    assert any(line.startswith("one picture, ms") for line in table)
    assert list(tmp_path.iterdir()) == []
    limits = ("--min-cosine", "0.9", "--min-agreement", "0")
    done = clipkit(*asked, *limits, env=site)
    assert (done.code, done.stderr) == (0, "")
    report = json.loads(done.stdout)
    assert report["limits"] == {"cosine": 0.9, "agreement": 0.0} and report["passed"]
    assert 0.9 < report["figures"]["image"]["cosine_min"] < 0.9999
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["network.bin", "parity.json"]


def test_a_missing_package_is_said_at_once(clipkit: Runner, site: dict[str, str], tmp_path: Path) -> None:
    done = clipkit("export", "--to", "missing", "--samples", "nowhere/", "-o", "out", env=site)
    assert done.code == 1 and done.stdout == ""
    assert "needs the package no_such_package" in done.stderr and "pip install no-such-package" in done.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_leaves_nothing(number: signal.Signals, tmp_path: Path) -> None:
    command = [sys.executable, "-P", "-m", "clipkit", "export", "--tower", "image", "-o", "out"]
    run = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    until = time.monotonic() + 60
    while not any(tmp_path.glob(".out.*/clipkit.json")):  # it is written, and is being measured
        assert run.poll() is None and time.monotonic() < until
        time.sleep(0.01)
    run.send_signal(number)
    out, err = run.communicate(timeout=60)
    assert (run.returncode, out) == (128 + number, b"")
    assert err == b"clipkit export: stopped; nothing was written\n"
    assert list(tmp_path.iterdir()) == []


def test_an_adapter_on_features_is_for_a_head(in_process: InProcess, tmp_path: Path) -> None:
    adapter = saved("gda", pictures(tmp_path / "photos"), tmp_path / "parts.adapter")
    done = in_process("export", "--tower", "image", "--adapter", adapter, "-o", "out")
    assert done.code == 2 and done.stdout == ""
    assert done.stderr == (
        "clipkit export: gda doesn't change the model: it answers by its features\n"
        "hint: clipkit export --to head makes one network of both\n"
    )


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--calibrate", "photos/"], "--calibrate says how --int8 is made"),
        (["--int8", "--dynamic", "--calibrate", "photos/"], "--dynamic and --calibrate are two ways to one thing"),
        (["--template", "a {}"], "--template is about --labels, of a head"),
        (["--labels", "a,b"], "--to onnx takes no --labels: head does"),
        (["--min-cosine", "1.01"], "1.01 is not in the range"),
        (["--min-cosine", "nan"], "--min-cosine takes a number, not nan"),
        (["--min-agreement", "-0.1"], "-0.1 is not in the range"),
        (["--samples", "nowhere/"], "no such file or folder: nowhere/"),
        (["--int8", "--calibrate", "nowhere/"], "no such file or folder: nowhere/"),
        (["--tower", "both"], "--tower"),
        (["--opset", "0"], "0 is not in the range"),
        (["--adapter", "nowhere"], "nowhere"),
        (["-o", "-"], "-o names a folder"),
    ],
)
def test_what_is_refused(args: list[str], said: str, in_process: InProcess, tmp_path: Path) -> None:
    done = in_process("export", "-o", "out", *args)
    assert done.code in (1, 2) and done.stdout == ""
    first, *rest = done.stderr.splitlines()
    assert first.startswith("clipkit export: ") and said in first
    assert all(line.startswith("hint: ") for line in rest)
    assert list(tmp_path.iterdir()) == []


def test_the_users_photos(clipkit: Runner, shared_data: Path, tmp_path: Path) -> None:
    done = clipkit("export", "--tower", "image", "--samples", shared_data / "captions/recipes/pairs.jsonl", "-o", "out")
    assert done.code == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["samples"] == {"name": "pairs.jsonl", "pictures": 83, "texts": 75}
    assert report["figures"]["image"]["cosine_min"] > 0.999999 and report["figures"]["agreement"]["value"] == 1.0
    assert report["costs"]["load_s"]["new"] > 0 and report["measured_on"]["apart"]
    assert str(shared_data) not in json.dumps(report)
    info = json.loads(clipkit("models", "info", "./out").stdout)
    assert info["digest"] == report["model"]["after"] == report["model"]["before"]


def test_a_table_is_for_terminals(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    near = {"cosine_min": 0.99991234, "cosine_mean": 0.99999, "largest_difference": 0.00123}
    report = {
        "model": {"name": "lite\x1b[31m", "before": "a" * 12, "after": "b" * 12},
        "target": "onnx",
        "precision": "int8",
        "samples": {"name": "photos", "pictures": 48, "texts": 123},
        "limits": {"cosine": 0.999, "agreement": 0.95},
        "figures": {
            "image": near,
            "agreement": {"value": 0.9792, "low": 0.891, "high": 0.9963, "n": 48},
            "recall": {"k": 10, "texts": 0.98, "pictures": 0.99},
        },
        "costs": {
            "bytes": {"old": 352_000_000, "new": 90_000_000, "ratio": 0.2557},
            "image_ms": {"old": 33.3, "new": 20.1, "ratio": 0.6036},
        },
    }
    shown.write(report, "small/", as_json=False)
    assert json.loads(capsys.readouterr().out) == report
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("NO_COLOR", "1")
    shown.write(report, "small/", as_json=False)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"small/: lite\\x1b[31m@{'b' * 12} as onnx, int8"
    assert "48 pictures and 123 texts (photos)" in lines
    rows = {line.split("  ")[0]: line.split() for line in lines if line}
    assert rows["cosine of pictures, least"][-2:] == ["0.999912", "0.999"]
    assert rows["same first answer (0.891 to 0.996)"][-2:] == ["0.9792", "0.95"]
    assert rows["weights, MB"][-3:] == ["352", "90", "0.26"]
    assert "costs, measured on one core; what else the machine does shows in the times" in lines
    assert rows["one picture, ms"][-3:] == ["33.3", "20.1", "0.60"]


def test_a_heads_table_speaks_of_probabilities(capsys: pytest.CaptureFixture[str]) -> None:
    report = {
        "samples": {"name": "carried", "pictures": 48, "texts": 0},
        "limits": {"cosine": 0.9999, "agreement": 0.99},
        "figures": {
            "probabilities": {"cosine_min": 0.99995, "cosine_mean": 1.0, "largest_difference": 2e-4},
            "agreement": {"value": 1.0, "low": 0.926, "high": 1.0, "n": 48},
        },
        "costs": {},
    }
    shown.tables(report, sys.stdout)
    said = capsys.readouterr().out
    assert said.startswith("48 pictures (carried)\n")
    assert "cosine of probabilities, least" in said and "of pictures" not in said and "text" not in said


def test_targets_are_offered() -> None:
    offered = dict(candidates(["export", "--to", "tor"]))
    assert list(offered) == ["torch.export"] and offered["torch.export"]


@pytest.mark.parametrize(
    "args",
    [
        ["zeroshot", "photo.png", "--labels", "cats,dogs", "--model", "./sights/"],
        ["export", "--model", "./sights/", "-o", "again"],
        ["embed", "photo.png", "--model", "./answers/", "-o", "features"],
        ["export", "--model", "./answers/", "-o", "again"],
        ["soup", "uniform", "./sights/", "-o", "again"],
        ["soup", "uniform", "./answers/", "-o", "again"],
        ["soup", "uniform", "parts.adapter", "-o", "again"],
    ],
)
def test_a_name_of_the_wrong_kind_is_a_matter_of_the_command_line(
    args: list[str], in_process: InProcess, tmp_path: Path, wrong_kinds: Path
) -> None:
    for path in wrong_kinds.iterdir():
        (tmp_path / path.name).symlink_to(path)
    done = in_process(*args)
    assert done.code == 2, done.stderr
    assert "Traceback" not in done.stderr and "\nhint: " in done.stderr
    assert {path.name for path in tmp_path.iterdir()} == {path.name for path in wrong_kinds.iterdir()}


@pytest.fixture(scope="module")
def wrong_kinds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders that are something, and no whole model."""
    folder = tmp_path_factory.mktemp("kinds")
    saved("gda", pictures(tmp_path_factory.mktemp("given")), folder / "parts.adapter")
    shutil.copy(pictures(tmp_path_factory.mktemp("photos"))[0], folder / "photo.png")
    few = Samples([Image.open(folder / "photo.png").convert("RGB")] * 2, ["a cat", "a dog"], "few")
    for name, target, wish in (
        ("sights", "onnx", Wish(towers=("image",))),
        ("answers", "head", Wish(labels="cats,dogs")),
    ):
        export(
            Export(model="lite", target=target, wish=wish, out=str(folder / name), samples=lambda: few, isolate=False)
        )
    return folder
