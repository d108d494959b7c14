"""Verbs and methods that other packages bring."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from clipkit import cli, verbs
from clipkit.errors import ClipkitError, UsageError
from clipkit.registry import Entry, Registry
from tests.cli.plugin import install
from tests.conftest import Runner

GREET = '''"""Greet a name.

Example:

    clipkit greet you
"""

def run(name: str) -> None:
    print(f"hello {name}")
'''
Captured = pytest.CaptureFixture[str]


def test_a_plugin_is_a_verb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clipkit: Runner) -> None:
    site = install(tmp_path, monkeypatch, "clipkit-greet", {"greet": GREET})
    env = {"PYTHONPATH": str(site)}
    assert clipkit("greet", "you", env=env).stdout == "hello you\n"
    assert "Plugins\n  greet" in clipkit(env=env).stdout
    assert clipkit("greet", "you", env={**env, "CLIPKIT_PLUGINS": ""}).code == 2


def test_listing_reads_the_summary_and_imports_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    install(tmp_path, monkeypatch, "clipkit-greet", {"greet": GREET})
    assert cli.run([]) == 0
    assert "  Greet a name." in capsys.readouterr().out
    assert "clipkit_greet_greet" not in sys.modules


def test_a_built_in_verb_wins_and_the_clash_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    install(tmp_path, monkeypatch, "clipkit-greet", {"methods": GREET})
    assert cli.run(["methods", "--help"]) == 0
    assert "kinds" in capsys.readouterr().out
    assert cli.run([]) == 0
    assert capsys.readouterr().err == "clipkit: clipkit-greet brings a verb methods, which is taken: left out\n"


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("import no_such_module\n", "ModuleNotFoundError: No module named 'no_such_module'"),
        ("raise ValueError('at import')\n", "ValueError: at import"),
        ('"""Says nothing."""\n', "AttributeError: module clipkit_bad_bad has no function run"),
    ],
)
def test_a_broken_plugin_costs_one_line(
    source: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    install(tmp_path, monkeypatch, "clipkit-bad", {"bad": source})
    assert cli.run(["bad"]) == 1
    first, second = capsys.readouterr().err.splitlines()
    assert first == f"clipkit bad: this verb comes from clipkit-bad, which cannot be loaded: {said}"
    assert second.startswith("hint: upgrade or remove clipkit-bad")
    assert cli.run([]) == 0
    assert cli.run(["methods"]) == 0


def test_built_in_verbs_never_look_for_plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CLIPKIT_PLUGINS", raising=False)
    monkeypatch.setattr(verbs, "plugins", lambda: pytest.fail("looked for plugins"))
    assert verbs.find("methods") is not None


def registry() -> Registry:
    return Registry("tests", Entry("json", "json:dumps", "To text."), Entry("gone", "no_such_module:x", "Not here."))


def test_registry_imports_by_name() -> None:
    assert registry().get("json")([1]) == "[1]"
    with pytest.raises(ModuleNotFoundError):
        registry().get("gone")


def test_registry_unknown_name_suggests() -> None:
    with pytest.raises(UsageError) as caught:
        registry().get("jsn")
    assert caught.value.message == "there is no 'jsn' among the tests"
    assert caught.value.hint == "did you mean json? see: clipkit methods tests"


def test_registry_takes_entry_points(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    points = (
        "[clipkit.tests]\nshout = clipkit_more_text:shout\njson = clipkit_more_text:shout\nbad = clipkit_more_text:no\n"
    )
    install(tmp_path, monkeypatch, "clipkit-more", {"text": "def shout(x): return x.upper()\n"}, points)
    found = registry()
    assert found.names() == ["bad", "gone", "json", "shout"]
    assert {entry.name: entry.distribution for entry in found}["shout"] == "clipkit-more"
    assert found.get("shout")("a") == "A"
    assert found.get("json")([1]) == "[1]"
    with pytest.raises(ClipkitError, match="bad comes from clipkit-more"):
        found.get("bad")
