"""Which synonyms a class has, and which is chosen."""

from __future__ import annotations

from pathlib import Path

import pytest

from clipkit.errors import UsageError
from clipkit.methods.concepts.synonyms import choose, listed, read_classes, read_synonyms, synonyms_of
from clipkit.text.wordnet import nouns


def test_those_of_wordnet_that_mean_this_more_often_than_anything_else() -> None:
    """A hat is a chapeau; a lid is a hat too, but first of all a cover."""
    assert "lid" in nouns().synonyms("hat")
    assert synonyms_of(["hat"], None).groups == (("hat", "chapeau"),)
    assert synonyms_of(["Sports_car"], None).groups == (("Sports car", "sport car"),)
    for name in ("airplane", "starfish", "laptop", "helicopter"):
        (group,) = synonyms_of([name], None).groups
        first = nouns().senses[name][0]
        assert all(nouns().senses[text.lower()][0] == first for text in group)


def test_a_class_in_the_plural_has_the_synonyms_of_the_singular() -> None:
    (group,) = synonyms_of(["Motorbikes"], None).groups
    assert group == ("Motorbikes", "minibike", "motorbike")


def test_a_file_stands_instead_of_wordnet() -> None:
    assert synonyms_of(["hat", "sofa"], {"sofa": ["couch", "Couch", "settee"]}).groups == (
        ("hat",),
        ("sofa", "couch", "settee"),
    )


def test_what_several_classes_have_is_nobodys_but_a_name_stays() -> None:
    found = synonyms_of(["crane", "bird"], {"crane": ["bird", "derrick"], "bird": ["fowl"]})
    assert found.groups == (("crane", "derrick"), ("bird", "fowl"))
    assert found.contested == ("bird",)
    found = synonyms_of(["sofa", "bench"], {"sofa": ["seats"], "bench": ["seat"]})  # one in the plural
    assert found.groups == (("sofa",), ("bench",))
    assert synonyms_of(["t-shirt", "T shirt"], {}).groups == (("t-shirt",), ("T shirt",))


def test_names_without_a_class_are_told() -> None:
    found = synonyms_of(["sofa"], {"soffa": ["couch"]})
    assert found.notices == ["1 with synonyms and no class: soffa"]


def test_a_class_that_no_text_can_name() -> None:
    with pytest.raises(UsageError, match="'!!' has no letter or digit"):
        synonyms_of(["cat", "!!"], None)


def test_most_captions_then_the_class_name_then_by_name() -> None:
    assert choose({"car": 1, "auto": 3, "automobile": 2}) == "auto"
    assert choose({"car": 3, "auto": 3}) == "car"
    assert choose({"car": 1, "motorcar": 3, "auto": 3}) == "auto"
    assert choose({"car": 0, "auto": 0}) == "car"


def test_a_list_is_cut() -> None:
    assert listed(list("abc")) == "a, b, c"
    assert listed(list("abcdefgh")) == "a, b, c, d, e, f, and 2 more"


def test_a_file_of_synonyms(tmp_path: Path) -> None:
    path = tmp_path / "words.json"
    path.write_text('{"sofa": ["couch"], "hat": [], "car": "auto"}')
    assert read_synonyms(str(path)) == {"sofa": ("couch",), "hat": (), "car": ("auto",)}
    for text in ('["sofa"]', '{"sofa": 3}', "{", '{"a": [], "a": []}'):
        path.write_text(text)
        with pytest.raises(UsageError, match="--synonyms") as caught:
            read_synonyms(str(path))
        assert "class -> synonyms" in str(caught.value.hint)
    with pytest.raises(UsageError, match="cannot read"):
        read_synonyms(str(tmp_path / "none.json"))


def test_quotes_in_a_list_of_classes_are_the_files(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_text('"night_snake"\n"A310"\n')
    assert read_classes(f"@{path}").names == ("night_snake", "A310")
