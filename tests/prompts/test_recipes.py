"""Recipes: those that the package carries are right, and a wrong one is told with its line."""

from __future__ import annotations

import re
import tomllib
from importlib import resources
from pathlib import Path

import pytest

from clipkit.errors import UsageError
from clipkit.prompts import placeholders, recipes

LEAST = 'name = "mine"\nabout = "Mine."\nmethod = "rewrite"\nprompt = "Say {text} anew."\n'


@pytest.mark.parametrize("name", recipes.carried())
def test_a_carried_recipe_is_called_as_its_file_and_can_be_printed_changed_and_read(name: str, tmp_path: Path) -> None:
    recipe = recipes.load(name)
    assert recipe.name == name
    assert recipe.paper or name == "describe"
    changed = tmp_path / "mine.toml"
    changed.write_text(recipes.source(name), encoding="utf-8")
    assert recipes.load(str(changed)) == recipe
    assert all(len(line) <= 130 for line in recipes.source(name).splitlines())


def test_which_there_are() -> None:
    methods = {recipe.name: recipe.method for recipe in recipes.listing()}
    assert methods == {
        "cupl": "labels",
        "describe": "vlm",
        "description": "labels",
        "dreamlip": "vlm",
        "hq-clip": "vlm",
        "laclip": "rewrite",
        "veclip": "rewrite",
    }


def test_they_are_installed_with_the_package() -> None:
    project = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))
    assert "*.toml" in project["tool"]["setuptools"]["package-data"]["*"]
    assert len(recipes.carried()) == sum(
        path.name.endswith(".toml") for path in resources.files("clipkit.prompts").iterdir()
    )


def test_figures_of_the_papers() -> None:
    laclip, cupl = recipes.load("laclip"), recipes.load("cupl")
    assert (laclip.variants, laclip.shots, laclip.temperature, laclip.top_p) == (4, 3, 0.9, 0.95)
    assert len(laclip.examples) > laclip.shots
    assert (cupl.variants, cupl.temperature, len(cupl.questions)) == (10, 0.99, 3)
    assert {part.negative for part in recipes.load("hq-clip").answer.values()} == {True, False}
    assert len(recipes.load("hq-clip").answer) == 4


def test_pairs_of_examples_keep_each_others_subject() -> None:
    """Each rewriting says it with other words, and is no copy."""
    for example in recipes.load("laclip").examples:
        before, after = (set(re.findall(r"\w+", text.lower())) for text in (example.before, example.after))
        assert before & after, example
        assert before - after and after - before, example


WRONG = [
    ('name = "a\n', "mine.toml:1: not TOML: illegal character"),
    (LEAST + "shots 3\n", "mine.toml:5: not TOML: expected '=' after a key"),
    (LEAST.replace("{text}", "{txet}"), "mine.toml:4: prompt names {txet}, which nothing stands for"),
    (LEAST.replace("{text}", "it"), "mine.toml:4: the prompt names nothing of the record"),
    (LEAST.replace("rewrite", "ask"), "mine.toml:3: method: invalid enum value 'ask'"),
    (LEAST + "variant = 3\n", "mine.toml:5: recipe contains unknown field `variant`"),
    (LEAST + "variants = 0\n", "mine.toml:5: variants: expected `int` >= 1"),
    (LEAST + 'variants = "4"\n', "mine.toml:5: variants: expected `int`, got `str`"),
    (LEAST + "temperature = nan\n", "mine.toml:5: temperature: expected `float` >= 0"),
    (LEAST + "shots = 1\n", "mine.toml:5: shots is 1, and there are 0 examples"),
    (LEAST.replace("{text}", "{text} {examples}"), "mine.toml:4: shots of examples and {examples} in the prompt"),
    (LEAST + 'questions = ["how?"]\n', "mine.toml:5: questions and {question} in the prompt go together"),
    (LEAST.replace("mine", "Mine!"), "mine.toml:1: name: expected `str` matching regex"),
    (LEAST + '[answer.long]\nsource = "l"\nmany = 3\n', "mine.toml:7: answer.many: expected `bool`, got `int`"),
    (LEAST + '[answer.long]\nsource = "l"\njoined = true\n', "mine.toml:5: answer.long: joined is about many"),
    (LEAST.partition("prompt")[0], "mine.toml: recipe missing required field `prompt`"),
    (
        'name = "m"\nabout = "a"\nmethod = "labels"\nprompt = "What?"\n',
        "mine.toml:4: neither the prompt nor a question",
    ),
]


@pytest.mark.parametrize(("text", "said"), WRONG)
def test_what_is_wrong_and_where(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(UsageError) as caught:
        recipes.load(str(path))
    assert str(caught.value).removeprefix(f"{tmp_path}/").startswith(said), str(caught.value)
    assert caught.value.hint


def test_names_and_paths(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no recipe is called 'lacip'") as caught:
        recipes.load("lacip")
    assert caught.value.hint == "did you mean laclip?"
    with pytest.raises(UsageError, match=r"cannot read the recipe .*nowhere.toml: No such file"):
        recipes.load(str(tmp_path / "nowhere.toml"))
    (tmp_path / "latin.toml").write_bytes('about = "é"'.encode("latin-1"))
    with pytest.raises(UsageError, match="not UTF-8"):
        recipes.load(str(tmp_path / "latin.toml"))
    with pytest.raises(UsageError, match="is called '\\.\\.'"):
        recipes.load("..")
    with pytest.raises(UsageError, match="cannot read the recipe"):
        recipes.load("../laclip")


def test_placeholders_are_names_in_braces_and_nothing_else_is() -> None:
    prompt = 'Give {"a": {}} of {text}, {record.alt-text} and {{text}}: {1} { text }'
    assert placeholders.names(prompt) == ["text", "record.alt-text"]
    filled = placeholders.fill(prompt, {"text": "{record.alt-text}", "record.alt-text": "\\1 {0}"})
    assert filled == 'Give {"a": {}} of {record.alt-text}, \\1 {0} and {text}: {1} { text }'
