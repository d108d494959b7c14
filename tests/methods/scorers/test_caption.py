"""What is counted in a caption, and what counts as boilerplate."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipkit.methods import SCORERS
from clipkit.methods.scorers.base import Sample
from clipkit.stream.record import Record


def scored(text: str) -> dict[str, float]:
    scorer = SCORERS.get("caption")({})
    scorer.setup(None)
    sample = Sample(Record({"text": text}), text=text)
    values = scorer.score(sample, scorer.look(sample))
    assert tuple(values) == scorer.outputs
    return {name.removeprefix("scores."): value for name, value in values.items()}


def test_an_ordinary_caption() -> None:
    assert scored("Two dogs and 3 cats\non a sofa") == {
        "words": 8,
        "characters": 29,
        "digits": round(1 / 29, 6),
        "repeated_words": 0.0,
        "boilerplate": 0.0,
    }


@pytest.mark.parametrize("text", ["", " ", "\n\t\u3000"])
def test_nothing_but_space(text: str) -> None:
    values = scored(text)
    assert values == {"words": 0, "characters": len(text), "digits": 0.0, "repeated_words": 0.0, "boilerplate": 0.0}


@pytest.mark.parametrize(
    "text, share",
    [
        ("red car, red Car", 0.5),
        ("buy buy buy buy", 0.75),
        ("a b c", 0.0),
        ("- - -", 2 / 3),
        ("STRASSE straße", 0.5),
    ],
)
def test_repeated_words(text: str, share: float) -> None:
    assert scored(text)["repeated_words"] == round(share, 6)


def test_digits_of_any_script() -> None:
    assert scored("١٢ab")["digits"] == 0.5
    assert scored("x²½")["digits"] == 0.0  # no decimal digits


WHOLE = [
    "IMG_1234.JPG",
    "IMG_1234",
    "IMG-20190101-WA0001",
    "img 0042",
    "DSC00042",
    "_DSC1234",
    "DSCN0001.jpg",
    "_MG_0815",
    "P1010001",
    "GOPR0123",
    "image 3",
    "photo-12",
    "Untitled1",
    "https://example.com/a?b=c",
    "www.example.com",
    "path/to/banner-2.png",
    "INDEX.HTML",
    "2019-05-01",
    "2019/5/1",
    "01.05.2019",
    "5/1/2019",
    "20190501",
    "May 1st, 2019",
    "1 May 2019",
    "3rd of Sept. 1998",
    "Click to enlarge",
    "click here  to view larger image",
    "View full-size photo",
    "Royalty-free stock photos",
    "No image available",
    "All rights reserved",
    "Image of",
    "  a photo of",
]


@pytest.mark.parametrize("text", WHOLE)
def test_what_is_boilerplate(text: str) -> None:
    assert scored(text)["boilerplate"] == 1.0


@pytest.mark.parametrize("text", WHOLE[:-2])
def test_boilerplate_within_a_caption_is_its_share(text: str) -> None:
    caption = f"a red bus {text} in town"
    assert scored(caption)["boilerplate"] == round(len(text) / len(caption), 6)


@pytest.mark.parametrize(
    "text",
    [
        "a red bus in London, 2019",
        "Sam 1984 and the clicking sound",
        "a man in front of the image of a saint",  # `image of` counts only where a caption begins
        "version 1.2.3 of chapter 12.5",
        "the years 2001-2005",
        "may the 4th be with you",
        "3.5 x 10.25 inches",
        "P10100011 pump",
        "a stock of photographs",
        "1234567890123",
        "IMGUR and the DSC",
        "Mr.jpgs",
    ],
)
def test_what_is_not(text: str) -> None:
    assert scored(text)["boilerplate"] == 0.0


@given(st.text())
def test_shares_are_shares(text: str) -> None:
    values = scored(text)
    assert values["words"] == len(text.split()) and values["characters"] == len(text)
    for name in ("digits", "repeated_words", "boilerplate"):
        assert math.isfinite(values[name]) and 0.0 <= values[name] <= 1.0


@pytest.mark.parametrize(
    "part", ["a", "a.", "1 ", "1", " ", "click the ", "may 1 ", "1/1/", "IMG_", "click" + " " * 1000, "\ud800", "\0"]
)
def test_a_hostile_megabyte_ends(part: str) -> None:
    text = (part * (1_000_000 // len(part)))[:1_000_000]
    assert scored(text)["characters"] == len(text)
