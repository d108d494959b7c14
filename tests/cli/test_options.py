"""Flags in groups: how they are parsed, shown, and handed to a verb."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer import Option

from clipkit import cli, loader, verbs
from clipkit.errors import UsageError
from clipkit.options import InputOptions, ModelOptions, Shard, StreamOptions, parse_map, parse_shard
from tests.cli.plugin import install


@given(st.integers(1, 10**6), st.integers(1, 10**6))
def test_shard(part: int, parts: int) -> None:
    if part <= parts:
        assert parse_shard(f"{part}/{parts}") == Shard(part, parts)
    else:
        with pytest.raises(UsageError):
            parse_shard(f"{part}/{parts}")


@pytest.mark.parametrize("text", ["", "1", "0/8", "9/8", "-1/8", "1/", "/8", "1/8/2", "a/b", "1.0/2"])
def test_no_shard(text: str) -> None:
    with pytest.raises(UsageError, match="--shard takes I/N"):
        parse_shard(text)


def test_map() -> None:
    assert parse_map("image=filepath, text = title") == {"image": "filepath", "text": "title"}


@pytest.mark.parametrize("text", ["", "image", "image=", "=x", "a=b,", "a=b,a=c", "a=x,b=x"])
def test_no_map(text: str) -> None:
    with pytest.raises(UsageError, match="--map"):
        parse_map(text)


def test_a_default_of_the_model_comes_from_the_config(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLIPKIT_MODEL", "ViT-B-32:openai")
    assert ModelOptions().name == "ViT-B-32:openai"
    assert ModelOptions(model="lite").name == "lite"
    assert ModelOptions().device_name == "auto"


SHOW = '''"""Show what it got."""
from typing import Annotated
from typer import Option
from clipkit.options import ModelOptions, StreamOptions

def run(
    io: StreamOptions,
    model: ModelOptions,
    labels: Annotated[str, Option(help="Some.")],
    top: Annotated[int, Option(help="How many.")] = 3,
) -> None:
    print(repr((io, model, labels, top)))
'''


@pytest.fixture
def show(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Run a verb that shows what it got; its output or, where it ends in an error, its stderr."""
    install(tmp_path, monkeypatch, "clipkit-show", {"show": SHOW})

    def run(*args: str) -> str:
        code = cli.run(["show", *args])
        out, err = capsys.readouterr()
        return err if code else out

    return run


def test_groups_arrive_whole(show: Any) -> None:
    line = "a.jpg - --labels x --top 5 -o o.jsonl --map image=path --shard 2/3 -0 -q --on-error skip --batch-size 7"
    io = StreamOptions(
        sources=["a.jpg", "-"],
        out="o.jsonl",
        map={"image": "path"},
        shard=Shard(2, 3),
        null=True,
        quiet=True,
        on_error="skip",
    )
    assert show(*line.split()) == f"{(io, ModelOptions(batch_size=7), 'x', 5)!r}\n"


def test_defaults_are_the_groups_own(show: Any) -> None:
    assert show("--labels", "x") == f"{(StreamOptions(), ModelOptions(), 'x', 3)!r}\n"


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--labels", "x", "--shard", "9/8"], "clipkit show: --shard takes I/N with I from 1 to N, not '9/8'\n"),
        (
            ["--labels", "x", "--limit", "-1"],
            "clipkit show: invalid value for '--limit': -1 is not in the range x>=0\n",
        ),
        ([], "clipkit show: missing option '--labels'\n"),
    ],
)
def test_wrong_arguments(args: list[str], said: str, show: Any) -> None:
    assert show(*args).startswith(said)


def test_help_has_a_section_a_group_own_options_first(show: Any) -> None:
    lines = show("--help").splitlines()
    headings = [line.rstrip(":") for line in lines if line and not line.startswith((" ", "Usage"))]
    assert headings == ["Options", StreamOptions.title, ModelOptions.title, "General"]
    assert lines.index("Options:") < next(n for n, line in enumerate(lines) if "--labels" in line)
    assert next(n for n, line in enumerate(lines) if "--shard" in line) < lines.index("Model:")


def test_examples_in_help_are_not_rewrapped() -> None:
    verb = verbs.find("methods")
    assert verb is not None
    made = loader.command(verb)
    with pytest.raises(loader.typer.Exit):
        made.make_context("clipkit methods", ["--help"])
    text = made.get_help(made.make_context("clipkit methods", []))
    assert "      clipkit methods\n      clipkit methods adapters tip\n" in text
    assert "Group:" not in text


@dataclass(frozen=True, kw_only=True)
class More(InputOptions):
    title: ClassVar[str] = "More"

    extra: Annotated[bool, Option("--extra", help="More.")] = False


def take_more(more: More) -> More:
    return more


def test_a_group_may_extend_another() -> None:
    flat = loader.flatten(take_more)
    sections = {info.rich_help_panel for _, info in map(get_args, list(flat.__annotations__.values())[:-1])}
    assert sections == {"More"}
    assert flat(extra=True, debug=False, **asdict(InputOptions(limit=3))) == More(extra=True, limit=3)
