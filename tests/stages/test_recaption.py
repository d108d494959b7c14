"""recaption as a stage and as a verb: what becomes of `text` and `texts`, what --improve-by keeps, resume."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clipkit.api import run
from clipkit.errors import RecordError, UsageError
from clipkit.methods import CAPTIONERS
from clipkit.methods.captioners.base import Captioner, Written
from clipkit.registry import Entry
from clipkit.stages.recaption import Recaption, method_of
from clipkit.stream.captions import Caption, captions, in_use_first, with_captions
from clipkit.stream.record import Record
from tests.killing import killed
from tests.methods.scorers.scoring import smooth

NOUNS = Path(__file__).parents[1] / "cases/recaption/tags/nouns.txt"


@dataclass(kw_only=True)
class Given(Captioner):
    """A captioner of another package: writes what a record's field `new` says."""

    name: ClassVar[str] = "given"
    needs_image: ClassVar[bool] = False

    @property
    def identity(self) -> str:
        return "given@1"

    def finish(self, begun: list[Any]) -> list[Written | RecordError]:
        return [Written([_caption(new) for new in one.record.get("new", [])]) for one in begun]


def _caption(new: Any) -> Caption:
    text, negative = (new, False) if isinstance(new, str) else (new["not"], True)
    text = text.replace("HALF", "\ud83d")  # half a character, as an answer may have it and a record may not
    return Caption(text, "given", "given@1", negative=negative)


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = Entry("given", f"{__name__}:Given", "Of this test.", "tests")
    monkeypatch.setitem(CAPTIONERS._own, "given", entry)
    monkeypatch.setattr(
        CAPTIONERS, "get", lambda name: Given if name == "given" else type(CAPTIONERS).get(CAPTIONERS, name)
    )


def done(record: dict[str, Any], **config: Any) -> dict[str, Any]:
    (out,) = run(Recaption({"method": "given", **config}), [record], on_error="keep")
    return out.to_dict()


def test_the_original_stays_and_a_second_run_adds_to_the_first() -> None:
    first = done({"id": "1", "text": "before", "new": ["one", "two"]})
    assert first["text"] == "one"
    assert first["texts"] == [
        {"text": "before", "source": "original"},
        {"text": "one", "source": "given", "model": "given@1"},
        {"text": "two", "source": "given", "model": "given@1"},
    ]
    assert first["via"] == {"texts": "recaption/given/given@1", "text": "recaption/given/given@1"}
    second = done(first | {"new": ["three", "one", "three"]})
    assert second["text"] == "three"
    assert second["texts"] == [*first["texts"], {"text": "three", "source": "given", "model": "given@1"}]


def test_entries_of_other_tools_pass_as_they_are() -> None:
    texts = ["plain", {"text": "b", "lang": "de", "seed": "x"}, {"text": "no", "negative": True, "why": 1.5}]
    out = done({"id": "1", "text": "b", "texts": texts, "new": ["c", {"not": "d"}]})
    assert out["texts"][:3] == texts
    assert out["texts"][3:] == [
        {"text": "c", "source": "given", "model": "given@1"},
        {"text": "d", "source": "given", "model": "given@1", "negative": True},
    ]


@pytest.mark.parametrize(("use", "text"), [("new", "one"), ("keep", "before")])
def test_what_text_becomes(use: str, text: str) -> None:
    out = done({"id": "1", "text": "before", "new": [{"not": "wrong"}, "one", "two"]}, use=use)
    assert out["text"] == text
    assert ("text" in out["via"]) == (use == "new")


def test_mix_draws_the_original_and_each_new_one_equally_often() -> None:
    rows = [{"id": f"r{n}", "text": "before", "new": ["one", "two", {"not": "wrong"}]} for n in range(900)]
    found = [out["text"] for out in run(Recaption({"method": "given", "use": "mix"}), rows)]
    counts = Counter(found)
    assert set(counts) == {"before", "one", "two"}
    assert all(240 < count < 360 for count in counts.values())  # 300 with a deviation of 14
    backwards = [out["text"] for out in run(Recaption({"method": "given", "use": "mix"}), rows[::-1])]
    assert backwards == found[::-1]
    assert found != [out["text"] for out in run(Recaption({"method": "given", "use": "mix", "seed": 1}), rows)]


@pytest.mark.parametrize("was", ["was", {"text": "was", "source": "original"}])
def test_mix_of_a_second_run_may_bring_the_original_back(was: Any) -> None:
    rows = [
        {"id": f"r{n}", "text": "one", "texts": [was, {"text": "one", "model": "m"}], "new": ["two"]}
        | {"via": {"text": "recaption/x", "width": "scan"}}
        for n in range(40)
    ]
    found = [out.to_dict() for out in run(Recaption({"method": "given", "use": "mix"}), rows)]
    assert {out["text"] for out in found} == {"was", "two"}
    for out in found:
        assert out["via"].get("text") == (None if out["text"] == "was" else "recaption/given/given@1")
        assert out["via"]["width"] == "scan"


def test_answers_are_cleaned_of_what_controls_terminals() -> None:
    out = done({"id": "1", "new": [" a\x1b[31m\n\ndog\x00 HALF", "👩‍🚀 ok"]})
    assert [entry["text"] for entry in out["texts"]] == ["a [31m dog", "👩‍🚀 ok"]
    out = done({"id": "1", "text": "as it\ncame", "new": ["two \r\n lines"]})
    assert [entry["text"] for entry in out["texts"]] == ["as it\ncame", "two lines"]


def test_nothing_to_say_and_an_empty_answer() -> None:
    assert done({"id": "1", "text": "t", "new": []}) == {"id": "1", "text": "t", "new": []}
    failed = done({"id": "1", "text": "t", "new": [" \n", {"not": "x"}]})
    assert failed["error"]["type"] == "empty-answer" and "texts" not in failed


@pytest.mark.parametrize(
    ("record", "kind"),
    [({"texts": "t"}, "bad-texts"), ({"texts": [1]}, "bad-texts"), ({"text": 3}, "bad-field")],
)
def test_records_that_cannot_be(record: dict[str, Any], kind: str) -> None:
    assert done({"id": "1", "new": ["a"], **record})["error"]["type"] == kind


def test_the_caption_in_use_is_first() -> None:
    record = Record({"text": "b", "texts": [{"text": "a"}, "b", {"text": "b", "negative": True}]})
    assert [caption.text for caption in in_use_first(record)] == ["b", "a"]
    assert [caption.text for caption in captions(record, negative=True)] == ["b"]


_ENTRIES = st.lists(
    st.one_of(
        st.text(max_size=3),
        st.fixed_dictionaries({"text": st.text(max_size=3)}, optional={"negative": st.booleans(), "lang": st.text()}),
    ),
    max_size=5,
)
_NEW = st.lists(st.builds(Caption, st.text("ab ", min_size=1, max_size=2), negative=st.booleans()), max_size=4)


@given(_ENTRIES, st.one_of(st.none(), st.text(max_size=3)), _NEW)
def test_no_caption_is_lost_and_none_is_there_twice(texts: list[Any], text: str | None, new: list[Caption]) -> None:
    record = Record({"texts": texts} | ({} if text is None else {"text": text}))
    after = with_captions(record, new)
    begin = after.index(texts[0]) if texts else len(after)
    assert after[len(after) - len(after[begin:]) :][: len(texts)] == texts
    later = Record({"texts": after})
    said = {caption.text for caption in captions(later)}
    assert said >= {caption.text for caption in captions(record)}
    assert said >= {caption.text for caption in new if caption.text.strip() and not caption.negative}
    again = with_captions(Record({"texts": after, "text": text or ""}), new)
    assert again == after


def test_improve_by_keeps_what_scores_higher(tmp_path: Path, warm: Path) -> None:
    from clipkit.stages.score import Score

    smooth(3).save(tmp_path / "a.png")
    texts = ["a red wall", "a blurred picture of colours", "a tax form", "green", "a dog"]
    rows = [{"id": text, "image": "a.png", "text": text} for text in texts]
    score = {r["text"]: r["scores"]["clip"] for r in run(Score({"by": ["clip"]}, {"root": str(tmp_path)}), rows)}
    old = sorted(texts, key=score.__getitem__)[1]
    record = {"id": "1", "image": "a.png", "text": old, "new": [*texts, {"not": "x"}]}
    for margin in (0.0, 0.02, 1.0):
        stage = Recaption({"method": "given", "improve_by": margin}, {"root": str(tmp_path)})
        (out,) = run(stage, [dict(record)])
        better = sorted((t for t in texts if score[t] > score[old] + margin), key=score.__getitem__, reverse=True)
        facts = stage.facts
        assert (facts["written"], facts["kept"], facts["improved"]) == (5, len(better), bool(better))
        if better:
            assert out["text"] == better[0]
            assert [e["text"] for e in out["texts"]] == [old, *better, "x"]
        else:
            assert out.to_dict() == record
        assert stage.results[0].startswith(f"{int(bool(better))} of 1 records improved")


def test_a_model_that_judges_its_own_captions_is_told_of(tmp_path: Path, warm: Path) -> None:
    smooth(3).save(tmp_path / "a.png")
    for method, told in (("tags", 1), ("given", 0)):
        params = {"concepts": str(NOUNS), "threshold": 0.0001} if method == "tags" else {}
        stage = Recaption({"method": method, "params": params, "improve_by": -1}, {"root": str(tmp_path)})
        (out,) = run(stage, [{"id": "1", "image": "a.png", "text": "a wall", "new": ["a red wall"]}])
        assert out["text"] != "a wall"
        assert sum("lite judged captions that it wrote itself" in notice for notice in stage.notices) == told


def test_flags_that_a_method_has_no_use_for(in_process: Any) -> None:
    for words, said in (
        (["--server", "http://localhost:1"], "--server is not for the method tags"),
        (["--method", "tags", "--max-tokens-total", "5"], "--max-tokens-total is not for the method tags"),
        (["--method", "hf", "--set", "repo=x", "--model", "lite"], "--model is not for the method hf"),
        (["--set", "depth=3"], "tags has no parameter 'depth'"),
        (["--method", "tgas"], "there is no 'tgas' among the captioners"),
        (["--recipe", "laclip", "--method", "vlm"], "the recipe laclip is for the method rewrite, not vlm"),
        (["--set", "threshold=2"], "threshold of tags is a probability"),
        (["--set", "concepts=gone.txt"], "--set concepts=gone.txt: there is no such file"),
        (["--price", "3"], "--price takes IN,OUT"),
    ):
        result = in_process("recaption", *words)
        assert result.code == 2 and f"clipkit recaption: {said}" in result.stderr, result.stderr


def test_a_recipe_names_its_method() -> None:
    assert method_of(None, "laclip", {})[0] == "rewrite"
    assert method_of(None, None, {})[0] == "tags"
    with pytest.raises(UsageError):
        method_of(None, "laclop", {})


@settings(max_examples=20)
@given(st.integers(0, 2**32))
def test_mix_is_a_function_of_id_and_seed(seed: int) -> None:
    row = {"id": "r", "text": "before", "new": ["one", "two"]}
    config = {"method": "given", "use": "mix", "seed": seed}
    (alone,) = run(Recaption(config), [dict(row)])
    *_, together = run(Recaption(config), [{"id": "q", "text": "x", "new": ["y"]}, dict(row)])
    assert alone.encode() == together.encode()


def test_killed_and_resumed(tmp_path: Path, clipkit: Any, warm: Path) -> None:
    for n in range(12):
        smooth(n).save(tmp_path / f"{n}.png")
    lines = [json.dumps({"id": str(n), "image": f"{n}.png", "text": f"number {n}"}) + "\n" for n in range(12)]
    words = ["recaption", "--set", f"concepts={NOUNS}", "--set", "threshold=0.0001", "--use", "mix", "-q"]
    killed(words, "".join(lines[:6]), tmp_path, after=600)
    resumed = clipkit(*words, "--resume", "-o", "out.jsonl", stdin="".join(lines))
    assert resumed.code == 0, resumed.stderr
    fresh = clipkit(*words, stdin="".join(lines))
    assert (tmp_path / "out.jsonl").read_text() == fresh.stdout
    assert '"source":"tags"' in fresh.stdout
