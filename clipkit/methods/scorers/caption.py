"""What a caption is made of: how long it is, and how much of it says nothing about the picture."""

from __future__ import annotations

import re
import string
from typing import Any, ClassVar

from clipkit.methods.scorers.base import TEXT, Sample, Scorer

_FILES = "jpe?g|png|gif|webp|bmp|tiff?|svg|heic|avif|psd|raw|cr2|nef|mp4|mov|avi|pdf|html?|php|aspx?"
_MONTH = r"(?:jan|feb|mar|apr|may|june?|july?|aug|sept?|oct|nov|dec)[a-z]{0,6}\.?"
_DAY, _YEAR = r"\d{1,2}(?:st|nd|rd|th)?", r"(?:19|20)\d\d"
_PICTURE = "(?:image|photo|photograph|picture|pic)"

# In each, a space stands for white space of any length. No part can match the same text in two ways: a hostile caption
# of a megabyte takes no longer than another.
_BOILERPLATE = {
    "address": r"(?i:https?://|\bwww\.)\S+",
    "file": rf"(?<!\S)\S+\.(?i:{_FILES})(?!\w)",
    "camera": r"(?<!\w)(?:_?(?:IMG|Img|img|DSC[NF]?|dsc[nf]?)[-_\s]?"
    r"|(?:PICT|MVI|GOPR|PXL|SAM|CIMG|HPIM|KIMG|IMAG|DJI)[-_]?|_MG_|P(?=\d{7}\b))\d{3,}[\w-]*",
    "number": rf"(?i:\b(?:{_PICTURE}|untitled|unnamed|screenshot)[-_\s]?\d+\b)",
    "date": rf"(?<!\d)(?:{_YEAR}[-/.]\d\d?[-/.]\d\d?|\d\d?[-/.]\d\d?[-/.]{_YEAR}"
    rf"|{_YEAR}(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01]))(?!\d)",
    "written date": rf"(?i:\b(?:{_DAY} (?:of )?{_MONTH},?|{_MONTH} {_DAY},?) {_YEAR}\b)",
    "click": r"(?i:\bclick (?:here|to|for|on|this|image|photo|picture)\b"
    r"(?: (?:to|for|the|this|a|image|photo|picture|enlarge|zoom|view|see|larger|full|size|version|more|info)\b)*)",
    "larger": rf"(?i:\b(?:view|see) (?:a |the )?(?:larger|bigger|full[-\s]size) {_PICTURE}\b)",
    "stock": r"(?i:\b(?:royalty[-\s]free )?stock (?:photo|image|picture|illustration|vector)s?\b)",
    "none": rf"(?i:\bno {_PICTURE} (?:available|found|yet)\b|\ball rights reserved\b)",
    "lead": rf"(?i:\A\s*(?:an? |the )?{_PICTURE} of\b)",
}
_ANY = re.compile("|".join(_BOILERPLATE.values()).replace(" ", r"\s+"))


class Caption(Scorer):
    """Five numbers about the caption as it stands; of a caption without a character the shares are 0.

    scores.words: pieces between white space, as DataComp counts them (`len(text.split())`).
    scores.characters: Unicode code points (`len(text)`), white space included.
    scores.digits: the share of characters that are decimal digits, of any script.
    scores.repeated_words: the share of words that came before in the caption, case and ASCII punctuation around
    them aside: 0.5 for "red car, red Car".
    scores.boilerplate: the share of characters in
        - web addresses (https://..., www....) and file names (a piece that ends in .jpg, .png, .html, ...);
        - names that cameras and phones give (IMG_1234, DSC00042, _MG_0815, P1010001) and numbered pictures
          (image 3, photo-12, untitled1, screenshot 2), with the rest of the piece for cameras;
        - whole dates with the year in full (2019-05-01, 1.5.2019, 20190501, May 1st, 2019, 1 May 2019);
        - English set phrases: "click here/to/for/on/this ..." with "to enlarge", "view full size" and the like after
          it, "view larger image", "(royalty-free) stock photo", "no image available", "all rights reserved", and
          "image of", "a photo of", "the picture of" where the caption begins.
    """

    name: ClassVar[str] = "caption"
    needs: ClassVar[frozenset[str]] = frozenset({TEXT})
    outputs: tuple[str, ...] = (
        "scores.words",
        "scores.characters",
        "scores.digits",
        "scores.repeated_words",
        "scores.boilerplate",
    )

    def score(self, sample: Sample, looked: Any) -> dict[str, Any]:
        text = sample.text or ""
        words = text.split()
        different = {word.casefold().strip(string.punctuation) or word for word in words}
        covered = sum(match.end() - match.start() for match in _ANY.finditer(text))
        return {
            "scores.words": len(words),
            "scores.characters": len(text),
            "scores.digits": _share(sum(map(str.isdecimal, text)), len(text)),
            "scores.repeated_words": _share(len(words) - len(different), len(words)),
            "scores.boilerplate": _share(covered, len(text)),
        }


def _share(part: int, whole: int) -> float:
    return round(part / whole, 6) if whole else 0.0
