"""Which server, which key."""

from __future__ import annotations

from dataclasses import fields
from typing import get_type_hints

import pytest

from clipkit.chat.settings import Settings, address, api_key
from clipkit.errors import UsageError
from clipkit.methods.captioners.served import SERVER_OPTIONS
from clipkit.options import ServerOptions


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("http://localhost:8000/v1", "http://localhost:8000/v1"),
        ("http://localhost:8000/v1/", "http://localhost:8000/v1"),
        (" https://api.example.org ", "https://api.example.org"),
        ("http://[::1]:8080/v1/chat/completions", "http://[::1]:8080/v1"),
        ("http://localhost:8000/v1/chat/completions/", "http://localhost:8000/v1"),
    ],
)
def test_an_address_is_what_every_request_adds_to(typed: str, meant: str) -> None:
    assert address(typed) == meant


@pytest.mark.parametrize(
    "typed",
    [
        "",
        "localhost:8000",
        "ftp://localhost/v1",
        "http://",
        "http:///v1",
        "http://host:99999/v1",
        "http://[::1/v1",
        "http://host/v1?key=1",
        "http://host/v1#a",
        "http://host/v 1",
        "http://host/\nv1",
    ],
)
def test_what_is_no_address_is_refused(typed: str) -> None:
    with pytest.raises(UsageError) as caught:
        address(typed)
    assert "\n" not in caught.value.message


def test_a_password_in_an_address_is_refused_and_not_shown() -> None:
    with pytest.raises(UsageError) as caught:
        address("http://me:secret@host/v1")
    assert "secret" not in f"{caught.value} {caught.value.hint}" and "CLIPKIT_API_KEY" in str(caught.value.hint)


def test_the_flags_name_what_is_asked_without_them() -> None:
    flags = get_type_hints(ServerOptions, include_extras=True)
    for field in fields(Settings):
        if field.name in flags and isinstance(field.default, int | float):
            (option,) = flags[field.name].__metadata__
            assert option.help.endswith(f"Default: {field.default:g}."), field.name
    assert {field.name for field in fields(ServerOptions)} == SERVER_OPTIONS


def test_a_server_must_be_named() -> None:
    with pytest.raises(UsageError, match="no server"):
        Settings.of({"concurrency": 3})


def test_a_model_has_a_name_that_can_be_sent() -> None:
    with pytest.raises(UsageError, match="--server-model"):
        Settings.of({"server": "http://a/v1", "server_model": "caf\udce9"})


def test_settings_are_those_that_were_given() -> None:
    settings = Settings.of({"server": "http://a/v1/", "concurrency": 3, "price": [1.0, 2.0], "recipe": "laclip"})
    assert settings == Settings(server="http://a/v1", concurrency=3, price=(1.0, 2.0))


def test_the_key_is_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    assert api_key() is None
    monkeypatch.setenv("OPENAI_API_KEY", "theirs")
    assert api_key() == "theirs"
    monkeypatch.setenv("CLIPKIT_API_KEY", " ours\n")
    assert api_key() == "ours"
    monkeypatch.setenv("CLIPKIT_API_KEY", "")
    assert api_key() == "theirs"


@pytest.mark.parametrize("key", ["two\r\nX-Other: lines", "schlüssel"])
def test_a_key_that_cannot_be_sent_is_refused_and_not_shown(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLIPKIT_API_KEY", key)
    with pytest.raises(UsageError) as caught:
        api_key()
    assert key[:6] not in f"{caught.value} {caught.value.hint}"
