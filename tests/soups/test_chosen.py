"""soup greedy and soup wise on models that see pictures: what they say is what `eval` measures of what they write."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from clipkit.models.load import load
from clipkit.stages.soup import GreedySoup
from tests.conftest import InProcess
from tests.soups import pictures


@pytest.fixture(scope="module", autouse=True)
def _registered(tmp_path_factory: pytest.TempPathFactory) -> None:
    pictures.register(tmp_path_factory.mktemp("configs"))


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return pictures.folders(tmp_path_factory.mktemp("models"), range(4))


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return pictures.shapes(tmp_path_factory.mktemp("pictures"), word=1)


@pytest.fixture
def labelled(tmp_path: Path, records: list[dict[str, Any]]) -> Path:
    return pictures.write(tmp_path / "labelled.jsonl", records)


@pytest.fixture
def captioned(tmp_path: Path, records: list[dict[str, Any]]) -> Path:
    return pictures.write(tmp_path / "captioned.jsonl", pictures.captions(records))


def said(in_process: InProcess, *args: str | Path, code: int = 0) -> list[dict[str, Any]]:
    done = in_process(*args)
    assert done.code == code, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def evaluated(in_process: InProcess, model: str, source: Path, *more: str) -> dict[str, float]:
    """top1 by `eval classification`."""
    (run,) = said(in_process, "eval", "classification", source, "--model", model, "--no-cache", *more)
    return {name: run["figures"]["top1"][name] for name in ("value", "low", "high")}


def test_greedy_is_what_eval_measures_and_never_below_the_best(
    in_process: InProcess, tmp_path: Path, models: list[str], labelled: Path
) -> None:
    *tried, soup = said(in_process, "soup", "greedy", *models, "--val", labelled, "-o", tmp_path / "soup")
    by_name = {f"seed-{seed}": evaluated(in_process, model, labelled) for seed, model in enumerate(models)}
    assert {one["model"]: one["alone"] for one in tried} == by_name
    order = sorted(by_name, key=lambda name: -by_name[name]["value"])
    assert [one["model"] for one in tried] == order
    assert soup["soup"] == evaluated(in_process, f"{tmp_path}/soup/", labelled)
    assert soup["soup"]["value"] >= max(one["value"] for one in by_name.values())
    taken = [one["model"] for one in tried if one["taken"]]
    assert sorted(term["model"] for term in soup["terms"]) == sorted(taken)
    assert {term["coefficient"] for term in soup["terms"]} == {1 / len(taken)}
    card = json.loads((tmp_path / "soup/soup.json").read_text())
    assert card["tried"] == [{name: one[name] for name in one if name != "kind"} for one in tried]
    assert str(tmp_path) not in json.dumps(card)


def test_greedy_takes_what_helps_and_leaves_what_hurts(in_process: InProcess, tmp_path: Path) -> None:
    """Labels are what theta answers. Two models are off to one side of it, one to the other: their mean is near it."""
    theta = pictures.untrained(pictures.ARCH, seed=2, device="cpu")
    theta.save_model(tmp_path / "theta")
    plain = pictures.write(tmp_path / "plain.jsonl", pictures.captions(pictures.shapes(tmp_path / "pictures")))
    labels = "red,green,blue,yellow,circle,square,bar,ring"
    answers = said(in_process, "zeroshot", plain, "--labels", labels, "--model", f"{tmp_path}/theta/", "--no-cache")
    given = [{"id": one["id"], "image": one["image"], "label": one["pred"]["label"]} for one in answers]
    val = pictures.write(tmp_path / "val.jsonl", given)
    names = [pictures.moved(theta, by, tmp_path / name) for name, by in (("a", 0.5), ("b", 0.55), ("c", -0.6))]
    done = in_process("soup", "greedy", *names, "--val", val, "--labels", labels, "-o", tmp_path / "soup")
    *tried, soup = map(json.loads, done.stdout.splitlines())
    assert {one["model"]: one["taken"] for one in tried} == {"a": True, "b": False, "c": True}
    assert soup["soup"]["value"] > max(one["alone"]["value"] for one in tried)
    assert soup["gain"]["value"] == pytest.approx(soup["soup"]["value"] - soup["best"]["value"], abs=2e-6)
    said_so = f"by {100 * soup['gain']['value']:.1f} points" in done.stderr and "that may be chance" in done.stderr
    assert (soup["gain"].get("low", 0) <= 0) == said_so


def test_equal_models_add_nothing_and_one_model_is_its_own_soup(
    in_process: InProcess, tmp_path: Path, models: list[str], labelled: Path
) -> None:
    *tried, soup = said(in_process, "soup", "greedy", models[0], models[0], "--val", labelled, "-o", tmp_path / "two")
    assert [(one["model"], one["taken"]) for one in tried] == [("seed-0", True), ("seed-0 (2)", False)]
    assert tried[0]["alone"] == tried[1]["alone"] == tried[1]["soup"]
    (_, alone) = said(in_process, "soup", "greedy", models[0], "--val", labelled, "-o", tmp_path / "one")
    swept = in_process("soup", "wise", models[0], models[0], "--target", labelled, "--sweep", "2")
    assert "alpha 0 is suggested: seed-0 itself" in swept.stderr and "chance" not in swept.stderr
    assert soup["weights"] == alone["weights"] == soup["terms"][0]["weights"]
    assert load(f"{tmp_path}/one/").identity.digest == load(models[0]).identity.digest


def test_neither_the_order_of_records_nor_threads_matter(
    in_process: InProcess, tmp_path: Path, models: list[str], records: list[dict[str, Any]]
) -> None:
    found = []
    for name, some, more in (("a", records, ["--workers", "1"]), ("b", records[::-1], ["--workers", "3"])):
        source = pictures.write(tmp_path / f"{name}.jsonl", some)
        tried = said(in_process, "soup", "greedy", *models[:2], "--val", source, "-o", tmp_path / name, *more)
        found.append([{k: v for k, v in one.items() if k not in ("out", "model")} for one in tried])
    assert found[0] == found[1]


def test_captions_are_measured_by_retrieval(
    in_process: InProcess, tmp_path: Path, models: list[str], captioned: Path
) -> None:
    """A picture that is shown twice counts once, with both captions, as in `eval retrieval`."""
    again = json.loads(captioned.read_text().splitlines()[0]) | {"id": "again", "text": "another caption of it"}
    captioned.write_text(captioned.read_text() + json.dumps(again) + "\n")
    (only, _) = said(in_process, "soup", "greedy", models[1], "--val", captioned, "-o", tmp_path / "soup")
    (run,) = said(in_process, "eval", "retrieval", captioned, "--model", models[1], "--no-cache")
    both = [run["figures"][f"{way}_r@1"]["value"] for way in ("image_to_text", "text_to_image")]
    assert (only["figure"], only["n"]) == ("r@1", 24)
    assert only["alone"]["value"] == pytest.approx(sum(both) / 2, abs=1e-6)


def test_the_ends_of_a_sweep_are_what_eval_says_of_both(
    in_process: InProcess, tmp_path: Path, models: list[str], labelled: Path, records: list[dict[str, Any]]
) -> None:
    shapes = [one | {"label": one["text"].split()[2]} for one in records]  # elsewhere the colour is the label
    others = pictures.write(tmp_path / "others.jsonl", shapes)
    args = ["soup", "wise", *models[1:3], "--target", labelled, "--others", others, "--sweep", "4"]
    *points, soup = said(in_process, *args, "-o", tmp_path / "soup", "--plot", tmp_path / "curve.svg")
    assert [point["alpha"] for point in points] == [0, 0.25, 0.5, 0.75, 1]
    for point, model in ((points[0], models[1]), (points[-1], models[2])):
        for role, source in (("target", labelled), ("others", others)):
            assert point[role] == {"figure": "top1", "n": 24, **evaluated(in_process, model, source)}
    best = max(points, key=lambda point: (point["mean"], -point["alpha"]))
    assert [point["alpha"] for point in points if point["suggested"]] == [soup["alpha"]] == [best["alpha"]]
    assert evaluated(in_process, f"{tmp_path}/soup/", labelled)["value"] == best["target"]["value"]
    assert soup["over_base"]["target"]["value"] == pytest.approx(
        best["target"]["value"] - points[0]["target"]["value"], abs=2e-6
    )
    assert "alpha" in (tmp_path / "curve.svg").read_text()


def test_an_alpha_that_is_asked_for_is_measured_and_written(
    in_process: InProcess, tmp_path: Path, models: list[str], labelled: Path
) -> None:
    args = ["--target", labelled, "--sweep", "1", "--alpha", "0.3", "-o", tmp_path / "swept"]
    *points, swept = said(in_process, "soup", "wise", *models[:2], *args)
    assert [point["alpha"] for point in points] == [0, 0.3, 1]
    (plain,) = said(in_process, "soup", "wise", *models[:2], "--alpha", "0.3", "-o", tmp_path / "plain")
    assert plain["weights"] == swept["weights"]
    assert "others" not in points[0] and "frugal" not in swept


def test_without_a_sweep_alpha_is_a_half_and_the_ends_are_the_models(
    in_process: InProcess, tmp_path: Path, models: list[str]
) -> None:
    (half,) = said(in_process, "soup", "wise", *models[:2], "-o", tmp_path / "half")
    (mean,) = said(in_process, "soup", "uniform", *models[:2], "-o", tmp_path / "mean")
    assert half["weights"] == mean["weights"]
    for alpha, model in ((0, models[0]), (1, models[1])):
        said(in_process, "soup", "wise", *models[:2], "--alpha", str(alpha), "-o", tmp_path / f"end-{alpha}")
        assert load(f"{tmp_path}/end-{alpha}/").identity.digest == load(model).identity.digest


def test_a_sweep_alone_writes_nothing(in_process: InProcess, tmp_path: Path, models: list[str], labelled: Path) -> None:
    before = sorted(tmp_path.iterdir())
    said(in_process, "soup", "wise", *models[:2], "--target", labelled, "--sweep", "1")
    assert sorted(tmp_path.iterdir()) == before


def split(records: list[dict[str, Any]], *names: str | None) -> list[dict[str, Any]]:
    """Records of these splits in turn; None for none."""
    named = [(one, names[place % len(names)]) for place, one in enumerate(records)]
    return [one | {"split": name} if name else one for one, name in named]


def test_images_for_test_and_train_are_not_chosen_on_unless_asked(
    in_process: InProcess, tmp_path: Path, models: list[str], records: list[dict[str, Any]]
) -> None:
    source = pictures.write(tmp_path / "all.jsonl", split(records, "val", None, "test", "train"))
    done = in_process("soup", "greedy", models[0], "--val", source, "-o", tmp_path / "a")
    assert json.loads(done.stdout.splitlines()[0])["n"] == 12
    assert "not 6 of test, 6 of train" in done.stderr
    done = in_process("soup", "greedy", models[0], "--val", source, "--split", "test", "-o", tmp_path / "b")
    assert json.loads(done.stdout.splitlines()[0])["n"] == 6
    assert "flatter" in done.stderr
    only = pictures.write(tmp_path / "test.jsonl", split(records, "test"))
    done = in_process("soup", "greedy", models[0], "--val", only, "-o", tmp_path / "c")
    assert (done.code, done.stdout) == (1, "")
    assert "24 of the split test" in done.stderr and "--split" in done.stderr
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize(
    ("record", "words"),
    [
        ({"id": "a", "image": "PICTURE"}, "missing-label 1"),
        ({"id": "a", "image": "PICTURE", "label": []}, "missing-label 1"),
        ({"id": "a", "image": "gone.png", "label": "x"}, "image-missing 1"),
        ({"id": "a", "image": "PICTURE", "label": "x"}, "one label, 'x'"),
        ({"id": "a", "image": "PICTURE", "text": "x"}, "one picture, or one caption"),
    ],
)
def test_nothing_to_choose_on_is_said_and_leaves_nothing(
    in_process: InProcess,
    tmp_path: Path,
    models: list[str],
    records: list[dict[str, Any]],
    record: dict[str, Any],
    words: str,
) -> None:
    given = {name: records[0]["image"] if value == "PICTURE" else value for name, value in record.items()}
    source = pictures.write(tmp_path / "one.jsonl", [given])
    done = in_process("soup", "greedy", models[0], "--val", source, "-o", tmp_path / "soup")
    assert (done.code, done.stdout) == (1, "")
    assert words in done.stderr and "hint: " in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one.jsonl"]


def test_a_broken_picture_is_left_out_and_the_soup_is_written(
    in_process: InProcess, tmp_path: Path, models: list[str], records: list[dict[str, Any]]
) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(Path(records[0]["image"]).read_bytes()[:60])
    source = pictures.write(tmp_path / "some.jsonl", [*records, records[0] | {"id": "x", "image": str(broken)}])
    rejects = tmp_path / "rejects.jsonl"
    done = in_process("soup", "greedy", models[0], "--val", source, "-o", tmp_path / "soup", "--rejects", rejects)
    assert done.code == 3 and "1 failed" in done.stderr
    assert json.loads(rejects.read_text())["id"] == "x"
    assert json.loads(done.stdout.splitlines()[0])["n"] == 24 and (tmp_path / "soup").is_dir()


def test_a_label_that_is_not_among_those_named_fails(
    in_process: InProcess, tmp_path: Path, models: list[str], labelled: Path
) -> None:
    args = ["--val", labelled, "--labels", "red,green,blue", "-o", tmp_path / "soup", "--lenient"]
    done = in_process("soup", "greedy", models[0], *args)
    assert done.code == 0 and json.loads(done.stdout.splitlines()[0])["n"] == 18


_STOPPED = """
import os, signal, sys
from pathlib import Path
from clipkit import cli
from clipkit.soups.candidates import Candidates
from tests.soups import pictures
pictures.register(Path(sys.argv[1]))
encoder = Candidates.encoder
def stopped(candidates, terms, name):
    if name == "alpha 0.5":
        os.kill(os.getpid(), signal.SIGINT)
    return encoder(candidates, terms, name)
Candidates.encoder = stopped
sys.exit(cli.run(sys.argv[2:]))
"""


@pytest.mark.slow
def test_ctrl_c_while_it_measures_leaves_nothing(tmp_path: Path, models: list[str], labelled: Path) -> None:
    work, configs = tmp_path / "work", tmp_path / "configs"
    work.mkdir()
    configs.mkdir()
    ask = ["soup", "wise", *models[:2], "--target", str(labelled), "--sweep", "2", "-o", "soup"]
    command = [sys.executable, "-c", _STOPPED, str(configs), *ask]
    there = os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    done = subprocess.run(command, cwd=work, env=there, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (130, "")
    assert "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1] == "clipkit soup wise: stopped; nothing was written"
    assert not list(work.iterdir())


def test_images_of_another_split_are_named_as_they_can_be_had(
    in_process: InProcess, tmp_path: Path, models: list[str], records: list[dict[str, Any]], labelled: Path
) -> None:
    others = pictures.write(tmp_path / "coco.jsonl", [{**one, "split": "val2017"} for one in records])
    done = in_process("soup", "wise", *models[:2], "--target", labelled, "--others", others)
    assert done.code == 1 and f"{len(records)} of the split val2017" in done.stderr
    assert done.stderr.endswith("unless --split names them: --split val2017 or --split all\n")


@pytest.mark.parametrize(
    ("gain", "said"),
    [
        ({"value": 0.03, "low": -0.01, "high": 0.07}, "by 3.0 points (-1.0 to 7.0) on 24 images: that may be chance"),
        ({"value": 0.03, "low": 0.0, "high": 0.07}, "by 3.0 points (0.0 to 7.0) on 24 images: that may be chance"),
        ({"value": 0.03, "low": 0.01, "high": 0.07}, None),
        ({"value": 0.0, "low": 0.0, "high": 0.0}, None),
    ],
)
def test_a_suggested_alpha_may_be_chance(
    gain: dict[str, float],
    said: str | None,
    in_process: InProcess,
    models: list[str],
    labelled: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("clipkit.stages.soup._over", lambda point, other: {"target": gain})
    done = in_process("soup", "wise", *models[:2], "--target", labelled, "--sweep", "1")
    assert done.code == 0
    assert ("is better than seed-0 on the target" in done.stderr) == (said is not None)
    assert (said or "suggested") in done.stderr + done.stdout
    chosen = in_process("soup", "wise", *models[:2], "--target", labelled, "--sweep", "1", "--alpha", "1")
    assert "chance" not in chosen.stderr, "nobody was advised"


def test_who_looks_on_is_told_where_the_soup_is() -> None:
    stage = GreedySoup({"models": ["a"]}, {"out": "made/"})
    assert stage.results == []
    stage._records = [{"kind": "soup", "out": "made"}]
    assert stage.results == ["the soup is in made"]
