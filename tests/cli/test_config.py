"""Defaults: who wins, and what a wrong file says."""

from __future__ import annotations

from pathlib import Path

import pytest

from clipkit import config
from clipkit.errors import UsageError


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def write_user_file(text: str) -> Path:
    path = config.user_file()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def test_each_source_beats_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = [config.setting("model")]
    user = write_user_file('model = "from-user"')
    seen.append(config.setting("model"))
    Path("clipkit.toml").write_text('model = "from-project"', encoding="utf-8")
    seen.append(config.setting("model"))
    monkeypatch.setenv("CLIPKIT_MODEL", "from-environment")
    seen.append(config.setting("model"))
    seen.append(config.setting("model", "from-flag"))
    assert [(setting.value, setting.origin) for setting in seen] == [
        ("lite", "built in"),
        ("from-user", str(user)),
        ("from-project", "clipkit.toml"),
        ("from-environment", "CLIPKIT_MODEL"),
        ("from-flag", "--model"),
    ]
    assert [setting.chosen for setting in seen] == [False, True, True, True, True]


def test_an_empty_variable_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLIPKIT_DEVICE", "")
    assert config.setting("device") == config.Setting("auto", "built in")


def test_a_file_may_name_the_home_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/somewhere")
    Path("clipkit.toml").write_text('root = "~/photos"\nmodel = "~x"', encoding="utf-8")
    assert config.setting("root").value == "/somewhere/photos"
    assert config.setting("model").value == "~x"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('modle = "x"', "clipkit.toml: no setting is called 'modle'"),
        ("model = 3", "clipkit.toml: model is not a string"),
        ("model = ", "clipkit.toml: not TOML"),
        ("\udcff", "clipkit.toml: cannot be read"),
    ],
)
def test_a_wrong_file_is_named(text: str, said: str) -> None:
    Path("clipkit.toml").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(UsageError) as caught:
        config.setting("model")
    assert str(caught.value).startswith(said)


def test_files_are_not_read_where_flag_or_environment_says_it(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("clipkit.toml").write_text("not toml", encoding="utf-8")
    monkeypatch.setenv("CLIPKIT_MODEL", "x")
    assert config.setting("model").value == "x"
    assert config.setting("device", "cpu").value == "cpu"


@pytest.mark.parametrize(("platform", "folder"), [("darwin", "Library/Caches/clipkit"), ("linux", ".cache/clipkit")])
def test_cache_folder_of_a_platform(platform: str, folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CLIPKIT_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/somewhere")
    monkeypatch.setattr("sys.platform", platform)
    assert config.setting("cache").value == f"/somewhere/{folder}"
