"""`clipkit doctor`: what it finds, and what it calls broken."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

from clipkit import diagnosis
from clipkit.diagnosis import Finding, findings
from tests.conftest import ROOT


@pytest.fixture(scope="module")
def without_torch() -> dict[tuple[str, str], Finding]:
    """What is found where torch is not installed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "torch", None)
        return {(found.section, found.name): found for found in findings()}


def test_a_sound_installation(without_torch: dict[tuple[str, str], Finding]) -> None:
    assert all(found.ok for found in without_torch.values())
    assert without_torch["defaults", "model"].value == "lite"
    assert without_torch["lite", "image.onnx"].value == "whole"
    assert without_torch["packages", "typer"].value.startswith("0.")


def test_torch_missing_is_said_and_is_no_fault(without_torch: dict[tuple[str, str], Finding]) -> None:
    assert without_torch["devices", "torch"].value == "not installed"


def test_what_exports_stand_on_is_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    """As an installation of today's pyproject.toml has it, whatever this one was installed from."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = [
        f'{need}; extra == "{name}"' for name, needs in project["optional-dependencies"].items() for need in needs
    ]
    monkeypatch.setattr(metadata, "requires", lambda name: [*project["dependencies"], *extras])
    listed = {found.name for found in diagnosis._packages()}
    assert {"onnx", "onnxscript", "openvino", "coremltools", "executorch"} <= listed
    assert not {"mypy", "clipkit"} & listed, "what only tests need is not looked for"


def test_a_damaged_model_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = tmp_path / "lite"
    shutil.copytree(diagnosis.LITE, copy)
    with (copy / "text.onnx").open("r+b") as file:
        file.seek(1000)
        file.write(b"\0\0\0\0")
    (copy / "tokenizer.json").unlink()
    monkeypatch.setattr(diagnosis, "LITE", copy)
    found = list(diagnosis._lite())
    assert [(one.name, one.ok) for one in found] == [("image.onnx", True), ("text.onnx", False), ("files", False)]


def test_a_wrong_config_file_is_a_finding_not_the_end(tmp_path: Path) -> None:
    (tmp_path / "clipkit.toml").write_text("modle = 'x'")
    block = "import sys; sys.modules['torch'] = None; from clipkit import cli; sys.exit(cli.run(['doctor', '--json']))"
    done = subprocess.run(
        [sys.executable, "-P", "-c", block], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (1, "")
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert "clipkit.toml: no setting is called 'modle'" in {one["note"] for one in found if not one["ok"]}
    assert found[-1]["section"] == "devices"


def test_the_default_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert list(diagnosis._model()) == []  # the carried one has lines of its own
    monkeypatch.setenv("CLIPKIT_MODEL", str(tmp_path / "gone"))
    (found,) = diagnosis._model()
    assert (found.name, found.value, found.ok) == (str(tmp_path / "gone"), "cannot be used", False)
    manifest = {
        "format": 1, "kind": "model", "name": "lite", "runtime": "openvino", "towers": ["image"],
        "identity": {"weights": "0" * 64, "activation": "gelu", "dim": 4},
        "preprocess": {"size": [8, 8], "mean": [0.5] * 3, "std": [0.5] * 3},
        "logit_scale": 100.0, "logit_bias": None, "context_length": 8, "tokenizer": None,
        "precision": "int8", "row_independent": False, "files": {},
    }  # fmt: skip
    (tmp_path / "gone").mkdir()
    (tmp_path / "gone/clipkit.json").write_text(json.dumps(manifest))
    (found,) = diagnosis._model()
    assert (found.value, found.note, found.ok) == ("openvino", "int8, image", True)
