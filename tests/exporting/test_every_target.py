"""What every target promises, those of other packages included: `clipkit/exporting/base.py`."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.util
import json
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from clipkit.errors import ClipkitError, MissingPackage, UsageError
from clipkit.exporting.base import Job, Target, Wish, Written
from clipkit.exporting.samples import Samples
from clipkit.exporting.source import Source
from clipkit.methods import EXPORTERS
from clipkit.models.exported import RUNTIMES
from clipkit.models.identity import weights_digest

NAMES = EXPORTERS.names()
WISHES: Mapping[str, Any] = {
    "int8": "weights",
    "opset": 20,
    "external_data": True,
    "embed_preprocessing": True,
    "labels": "cat,dog",
}
NEEDS: Mapping[str, Mapping[str, Any]] = {"head": {"labels": "cat,dog"}}  # without these there is nothing to export


def wish(name: str, **more: Any) -> Wish:
    return Wish(**{**NEEDS.get(name, {}), **more})


def missing(name: str) -> ClipkitError | None:
    """Why a target cannot be had on this machine."""
    try:
        EXPORTERS.get(name)(wish(name))
    except ClipkitError as error:
        return error
    return None


@pytest.mark.parametrize("name", NAMES)
def test_it_says_what_it_is(name: str) -> None:
    target: type[Target] = EXPORTERS.get(name)
    said = target.describe()
    assert json.loads(json.dumps(said)) == said
    assert len(said["about"]) > 40
    assert said["about"].endswith(".")
    assert set(said["takes"]) <= set(WISHES)
    assert all(install.startswith("pip install") for install in target.packages.values())
    assert not target.runtime or target.runtime in RUNTIMES
    assert target.open is not Target.open or target.runtime, "somebody must be able to open what it wrote"


@pytest.mark.parametrize("name", NAMES)
def test_what_it_does_not_take_is_a_mistake_of_the_command_line(name: str) -> None:
    """Whatever is installed: a package would not help. Only the platform may speak first."""
    target: type[Target] = EXPORTERS.get(name)
    why = missing(name)
    if why and not isinstance(why, MissingPackage):
        return
    for field, value in WISHES.items():
        if field in target.takes or field in NEEDS.get(name, {}):
            continue
        with pytest.raises(UsageError) as caught:
            target(wish(name, **{field: value}))
        assert f"--{field.replace('_', '-')}" in caught.value.message
        assert caught.value.hint


def test_no_wish_is_left_out() -> None:
    """A new wish of the command line is one that targets take or refuse."""
    asked = {field.name for field in dataclasses.fields(Wish)}
    assert asked == {*WISHES, "towers", "adapter", "templates"}


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_package_says_how_to_install_it(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    target: type[Target] = EXPORTERS.get(name)
    assert target.packages
    monkeypatch.setattr(importlib.util, "find_spec", lambda *_: None)
    with pytest.raises(ClipkitError) as caught:
        target(wish(name))
    if isinstance(caught.value, MissingPackage):
        assert caught.value.hint in {f"run: {install}" for install in target.packages.values()}
    else:
        assert caught.value.hint, "refused before that: the platform"


@pytest.mark.parametrize("name", NAMES)
def test_the_platform_or_a_package_may_be_missing(name: str) -> None:
    if why := missing(name):
        assert name in ("coreml", "executorch"), f"the tests' own machine has what {name} needs: {why.message}"
        assert "\n" not in why.message
        assert why.hint


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("coreml", "executorch")])
def test_it_writes_into_its_folder_and_nowhere_else(
    name: str,
    source: Callable[[str], Source],
    samples: Samples,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Nothing beside it, nothing left in TMPDIR, nothing on standard output; the source stays as it was."""
    given = source("tiny-vit")
    graphs = {path: _sha256(path) for path in (given.graph("image"), given.graph("text"))}
    weights = weights_digest(given.encoder.module().state_dict())  # type: ignore[attr-defined]
    fresh = {part: tmp_path / part for part in ("folder", "scratch", "here", "temporary")}
    for path in fresh.values():
        path.mkdir()
    monkeypatch.chdir(fresh["here"])
    monkeypatch.setenv("TMPDIR", str(fresh["temporary"]))
    monkeypatch.setattr(tempfile, "tempdir", None)
    told: list[str] = []
    capfd.readouterr()
    asked = wish(name)
    job = Job(given, asked, fresh["folder"], fresh["scratch"], lambda: samples, told.append)
    written = EXPORTERS.get(name)(asked).write(job)
    assert capfd.readouterr().out == ""
    assert isinstance(written, Written)
    json.dumps([written.facts, written.more])
    assert any(fresh["folder"].iterdir())
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(fresh)
    assert os.listdir(fresh["here"]) == []
    assert os.listdir(fresh["temporary"]) == []
    assert {path: _sha256(path) for path in graphs} == graphs
    assert weights_digest(given.encoder.module().state_dict()) == weights  # type: ignore[attr-defined]
    assert weights == given.encoder.identity.weights
    assert all("\n" not in line for line in told)


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
