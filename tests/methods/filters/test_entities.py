"""entity(): a small dictionary in WordNet's own format, worked out by hand, and the real one where it is installed."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from clipkit.errors import UsageError
from clipkit.methods.filters.entities import Entities, WordNet, load_entities, read_synsets

LICENCE = "  1 This software and database is being provided to you, the LICENSEE, by a university under a licence  \n"
# lemma pos synsets pointers [pointer...] senses tagged offset...
NOUNS = """
bus n 2 3 @ ~ #p 2 1 02924116 02924554
church n 1 1 @ 1 1 08081668
discus n 1 1 @ 1 0 07470285
dog n 3 2 @ ~ 3 1 02084071 10114209 10023039
man n 1 1 @ 1 1 10287213
mouse n 1 2 @ ~ 1 1 02330245
new_york n 1 1 @i 1 1 09117351
pony n 1 1 @ 1 1 02382437
wolf n 1 1 @ 1 1 02114100
""".lstrip()
VERBS = "bake v 1 1 @ 1 1 00544404\ndiscuss v 1 1 @ 1 1 01034312\nrun v 1 2 @ ~ 1 1 01926311\n"
ADJECTIVES = "big a 1 1 & 1 1 01382086\nnice a 1 0 1 1 01586752\n"
ADVERBS = "fast r 1 0 1 1 00086000\n"


@pytest.fixture
def dictionary(tmp_path: Path) -> Path:
    for part, text in {"noun": NOUNS, "verb": VERBS, "adj": ADJECTIVES, "adv": ADVERBS}.items():
        (tmp_path / f"index.{part}").write_text(LICENCE + text)
        (tmp_path / f"{part}.exc").write_text("")
    (tmp_path / "noun.exc").write_text("mice mouse\noxen ox\n")
    (tmp_path / "verb.exc").write_text("ran run\n")
    (tmp_path / "adj.exc").write_text("bigger big\n")
    return tmp_path


@pytest.mark.parametrize(
    ("word", "offset"),
    [
        ("dog", 2084071),
        ("Dogs", 2084071),
        ("BUSES", 2924116),
        ("churches", 8081668),
        ("wolves", 2114100),
        ("ponies", 2382437),
        ("men", 10287213),
        ("mice", 2330245),
        ("oxen", None),  # an exception that leads to no lemma ends the search
        ("ran", 1926311),
        ("baked", 544404),
        ("baking", 544404),
        ("bigger", 1382086),
        ("nicest", 1586752),
        ("fast", 86000),
        ("faster", None),  # adverbs have no endings
        ("dog,", None),  # as DataComp: punctuation stays
        ("new_york", 9117351),
        ("discusses", 7470285),  # the noun, by taking endings off twice, before the verb
        ("", None),
        ("x" * 101, None),
    ],
)
def test_first_synset_by_hand(dictionary: Path, word: str, offset: int | None) -> None:
    assert WordNet(str(dictionary)).first_offset(word) == offset


def test_any_word_of_a_text(dictionary: Path, tmp_path: Path) -> None:
    listed = tmp_path / "in21k.txt"
    listed.write_text("# a comment\nn02084071\n\n02382437  # the number alone\nn01926311\n")
    entity = load_entities(str(dictionary), str(listed))
    assert entity("two big\tDogs") and entity("ponies") and not entity("a wolf, a bus") and not entity("")
    assert entity("he ran")  # a verb's offset equals a listed noun's: compared by number alone


def test_no_word_takes_long(dictionary: Path) -> None:
    entity = Entities(WordNet(str(dictionary)), frozenset([1]))
    before = time.process_time()
    assert not entity("es" * 50 + " " + "ses" * 33 + " " + "s" * 1_000_000)
    assert time.process_time() - before < 2


@pytest.mark.parametrize(
    ("text", "message"), [("dog\n", "expected a synset such as n02084071, got 'dog'"), ("# none\n", "names no synset")]
)
def test_lists_that_are_none(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "list"
    path.write_text(text)
    with pytest.raises(UsageError) as caught:
        read_synsets(str(path))
    assert message in str(caught.value)


def test_folders_that_are_none(dictionary: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"index\.noun cannot be read: No such file") as caught:
        WordNet(str(tmp_path / "nowhere"))
    assert "WordNet 3.0" in str(caught.value.hint)
    (dictionary / "index.verb").write_text("run v one\n")
    with pytest.raises(UsageError, match=r"index\.verb:1: .*no line of a WordNet index"):
        WordNet(str(dictionary))


def test_the_names_of_imagenets_classes_lead_to_them(shared_data: Path) -> None:
    folder = Path("/usr/share/wordnet")
    if not folder.is_dir():
        pytest.skip("needs WordNet 3.0's files (Debian's wordnet-base)")
    wordnet = WordNet(str(folder))
    lines = (shared_data / "refs/imagenet_wordnet.jsonl").read_text().splitlines()
    first, single = 0, 0
    for line in lines:
        record = json.loads(line)
        offset = int(record["wnid"][1:])
        names = [name for name in record["synset"] if " " not in name]
        single += bool(names)
        first += any(wordnet.first_offset(name) == offset for name in names)
    assert single > 500 and first / single > 0.65  # the others' names have a more frequent sense
