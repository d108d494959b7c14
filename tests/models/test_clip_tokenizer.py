"""Token ids: the golden ones of OpenAI's tokenizer, and open_clip's for whatever else people write."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clipkit.errors import ClipkitError
from clipkit.models.clip_tokenizer import TextTokenizer, clip_tokenizer

TOKENIZER = clip_tokenizer()
START, END = 49406, 49407


def golden(shared_data: Path) -> list[dict[str, object]]:
    lines = (shared_data / "refs" / "clip_tokens_golden.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def test_golden_ids(shared_data: Path) -> None:
    rows = golden(shared_data)
    assert len(rows) > 2000
    for row in rows:
        text = str(row["text"])
        assert TOKENIZER.ids(text) == [START, *row["ids"], END], text  # type: ignore[misc]
        assert TOKENIZER.count(text) == row["n"]
        if "context77" in row:
            assert TOKENIZER([text])[0].tolist() == row["context77"], text


def test_golden_ids_without_torch_and_from_the_saved_file(shared_data: Path, tmp_path: Path) -> None:
    program = """
import json, sys
sys.modules["torch"] = None  # importing it, or open_clip, fails
from pathlib import Path
from clipkit.models.clip_tokenizer import TextTokenizer, clip_tokenizer
clip_tokenizer().save(Path(sys.argv[2]))
tokenizer = TextTokenizer.open(Path(sys.argv[2]), 77)
rows = [json.loads(line) for line in open(sys.argv[1], encoding="utf-8")]
print(sum(tokenizer.ids(row["text"])[1:-1] != row["ids"] for row in rows), len(rows))
"""
    source = shared_data / "refs" / "clip_tokens_golden.jsonl"
    command = [sys.executable, "-P", "-c", program, str(source), str(tmp_path / "tokenizer.json")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    wrong, total = map(int, done.stdout.split())
    assert wrong == 0 and total > 2000


LETTERS = st.sampled_from(
    [*"abcxyzAZ '’.,!?-_#&;<>/0123456789", "'s", "'LL", "&amp;", "é", "ß", "İ", "ſ", "Σ", "中", "🦁", "\n", "\xa0"]
)


@settings(deadline=None)
@given(st.lists(LETTERS, max_size=40).map("".join))
def test_ids_are_open_clips(text: str) -> None:
    from open_clip import tokenize

    assert TOKENIZER([text])[0].tolist() == tokenize([text])[0].tolist()


@pytest.mark.parametrize("clean", ["lower", "whitespace", "canonicalize"])
def test_cleaning_is_open_clips(clean: str) -> None:
    from open_clip.tokenizer import get_clean_fn

    from clipkit.models.clip_tokenizer import cleaned

    for text in ["  A_b  &amp;amp; C's\tÂ“dâ€\x9d ", "x.y,z!", "", "_", "İ ſ\u3000ß"]:
        assert cleaned(text, clean) == get_clean_fn(clean)(text)  # type: ignore[arg-type]


def test_a_long_text_keeps_its_first_tokens_and_the_closing_one() -> None:
    short = clip_tokenizer(context_length=5)
    assert short.count("a b c d e") == 7
    whole = TOKENIZER.ids("a b c d e")
    assert short(["a b c d e"])[0].tolist() == [*whole[:4], END]


def test_a_broken_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(ClipkitError, match="cannot read"):
        TextTokenizer.open(tmp_path / "tokenizer.json", 77)


def test_a_padding_token_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    TOKENIZER.save(tmp_path / "tokenizer.json")
    with pytest.raises(ClipkitError, match="no token '<pad>'"):
        TextTokenizer.open(tmp_path / "tokenizer.json", 77, pad="<pad>")
