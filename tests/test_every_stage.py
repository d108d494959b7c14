"""Every stage gives the same bytes in another process, alone or in a batch, in any order, on any number of threads."""

from __future__ import annotations

import atexit
import functools
import importlib
import inspect
import json
import pkgutil
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import clipkit.stages
from clipkit.api import run
from clipkit.stream.record import Record
from clipkit.stream.stage import Stage
from clipkit.stream.whole import WholeStage
from tests.chat.server import Server

NOUNS = Path(__file__).with_name("cases") / "recaption/tags/nouns.txt"
# A config for each stage. A new stage needs a line here.
EXAMPLES: dict[str, dict[str, Any]] = {
    "Apply": {"adapter": str(Path(__file__).parent / "cases/apply/basic/parts.adapter")},
    "Balance": {"counts": [str(Path(__file__).parent / "cases/balance/counts/part.counts")], "t": 1},
    "BalanceCount": {},
    "BalancePlan": {"tail_mass": 0.06},
    "BalanceWhole": {"t": 1, "mark": True},
    "AssignClusters": {"centroids": str(Path(__file__).parent / "cases/cluster/assign/three.safetensors")},
    "Cat": {},
    "Cluster": {"k": 3},
    "Decontaminate": {"against": [str(Path(__file__).parent / "cases/decontaminate/pictures/eval.jsonl")]},
    "CountConcepts": {"names": ["picture", "r"], "groups": [["picture"], ["png"]]},
    "CountTags": {"model": "lite", "names": ["noise", "picture"], "groups": [["noise", "a pattern"], ["picture"]]},
    "CorruptShuffle": {"share": 0.5},
    "CorruptWords": {"by": "drop-words", "share": 0.5},
    "Curve": {"counts": [str(Path(__file__).parent / "cases/concepts-curve/answers/counts.jsonl")]},
    "Dedup": {"by": ["bytes", "pixels", "phash", "text", "semantic"], "mark": True},
    "Describe": {
        "centroids": str(Path(__file__).parent / "cases/cluster/assign/three.safetensors"),
        "concepts": ["noise", "a picture"],
    },
    "Embed": {"model": "lite", "image": True, "text": True, "backbone": True},
    "EvalClassification": {"resamples": 100, "per_sample": True},
    "EvalFewShot": {"methods": ["gda", "tip"], "shots": [1, 2], "seeds": 2, "resamples": 100, "per_sample": True},
    "EvalLinearProbe": {"resamples": 100, "per_sample": True},
    "EvalOod": {"labels": ["even", "odd"], "resamples": 100, "per_sample": True},
    "EvalPairs": {},
    "EvalRetrieval": {"captions": 5, "resamples": 100, "per_sample": True},
    "EvalPredictions": {"resamples": 0},
    "Fetch": {"to": "fetched"},
    "EvalRobustness": {
        "resolutions": [16, 300],
        "corruptions": ["fog", "pixelate"],
        "severities": [5],
        "resamples": 100,
        "per_sample": True,
    },
    "Filter": {"where": ["x > 1 and words(text) > 3", "not id ~ 'r[37]'"]},
    "GeneratePrompts": {"params": {"variants": 2}},
    "GreedySoup": {},
    "Head": {},
    "Join": {"right": str(Path(__file__).parent / "cases/join/left/right.jsonl")},
    "ReadDataset": {},
    "RankedFilter": {"where": ["x >= q(0.2)"], "top": {"by": "x", "fraction": 0.5, "strict": True}},
    "Retrieve": {"labels": ["r1", "r2", "a picture"], "per_class": 2},
    "RetrieveRandom": {"labels": ["r1", "r2", "a picture"], "per_class": 2},
    "Sample": {"fraction": 0.5, "seed": 0},
    "SampleExact": {"count": 6},
    "Pack": {},
    "Recaption": {"params": {"concepts": str(NOUNS), "threshold": 0.001}, "improve_by": -0.5},
    "Prune": {"method": "density", "keep": 6, "k": 3},
    "PruneRecords": {"method": "random", "keep": 6},
    "Scan": {"hash": True, "size": True},
    "ScanPlain": {},
    "Score": {"by": ["clip", "clip-flip", "tmars", "prompts"], "options": {"concepts": ["noise|a photo", "x=a|b|c"]}},
    "ScoreAmongAll": {"by": ["retrieval-rank", "clip"], "options": {"rank_batch": 4}},
    "Search": {"model": "lite", "terms": [{"weight": 1.0, "text": "noise"}], "top_k": 20},
    "SearchStore": {"model": "lite", "terms": [{"weight": 1.0, "text": "noise"}]},
    "Set": {"rename": {}, "values": {"label": "cat"}, "drop": [], "keep": []},
    "Shuffle": {"seed": 0},
    "Sort": {"by": [["x", True]]},
    "Split": {"ratios": {"train": "0.5", "test": "0.5"}},
    "SplitStratified": {"ratios": {"train": "0.6", "test": "0.4"}, "stratify": "x"},
    "Tail": {},
    "Synonyms": {"labels": ["r1", "r2", "picture"]},
    "Train": {"model": "tiny-ViT-32", "settings": {"steps": 2, "batch_size": 4}},
    "TrainAdapter": {"method": "prototypes", "shots": 4, "seeds": 2, "views": 2},
    "UpdateAdapter": {"update": str(Path(__file__).parent / "cases/train-adapter/update/old.adapter")},
    "WiseSoup": {"steps": 2},
    "Zeroshot": {"model": "lite", "labels": ["a cat", "a dog", "noise"]},
    "ZeroshotMulti": {"model": "lite", "labels": ["a cat", "noise"], "threshold": 0.9},
    "ZeroshotTogether": {
        "model": "lite",
        "labels": ["a cat", "a dog", "noise"],
        "templates": ["a photo of {}.", "{}", "a drawing of {}"],
        "decision": "zpe",
    },
    "ZeroshotAdapted": {
        "adapter": str(Path(__file__).parent / "cases/apply/basic/parts.adapter"),
        "labels": ["red", "green", "noise"],
        "blend": 0.5,
    },
}
# What a stage cannot do without in its records, the first of them, the second, and so on, over and over.
_SPLITS: list[dict[str, Any]] = [{"split": split} for split in ("train", "train", "test", "test", "train", "train")]
FIELDS: dict[str, list[dict[str, Any]]] = {
    "EvalFewShot": _SPLITS,
    "EvalLinearProbe": _SPLITS,
    "EvalOod": [{}, {"ood": "others"}],
}
ASK_A_SERVER = {"GeneratePrompts"}
MIX_MODELS = {"GreedySoup", "WiseSoup"}
MANY = 11


def stages() -> list[type[Stage]]:
    """The stages of clipkit/stages, each where it is defined."""
    found = []
    for module_info in pkgutil.iter_modules(clipkit.stages.__path__, "clipkit.stages."):
        module = importlib.import_module(module_info.name)
        found += [
            value
            for _, value in inspect.getmembers(module, inspect.isclass)
            if issubclass(value, Stage) and value.__module__ == module.__name__ and value.verb
        ]
    return found


every_stage = pytest.mark.parametrize("cls", stages(), ids=lambda cls: cls.__name__)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of small pictures, one broken."""
    folder = tmp_path_factory.mktemp("photos")
    draw = np.random.default_rng(0)
    for i in range(MANY):
        pixels = draw.integers(0, 256, (40 + 30 * i, 300 - 20 * i, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"r{i}.png")
    (folder / "broken.png").write_bytes((folder / "r0.png").read_bytes()[:400])
    return folder


def records(cls: type[Stage]) -> list[Record]:
    named = [*(f"r{i}.png" for i in range(MANY)), "broken.png", "missing.png"]
    given = [{"id": name, "image": name, "text": f"a picture of {name}", "x": 1.5} for name in named]
    labels, more = ("even", "odd"), FIELDS.get(cls.__name__, [{}])
    lines = [json.dumps(record | {"label": labels[i % 2]} | more[i % len(more)]) for i, record in enumerate(given)]
    return [Record.parse(line.encode(), f"f:{i}") for i, line in enumerate(lines)]


@functools.cache
def talkative() -> Server:
    """A language model for the stages that ask one."""
    server = Server()
    server.__enter__()
    atexit.register(server.__exit__)
    return server


@functools.cache
def mixed() -> tuple[str, ...]:
    """Two models for the stages that mix some."""
    from clipkit.models.open_clip import untrained

    root = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, root)
    for seed in range(2):
        untrained("tiny-ViT-32", seed=seed, device="cpu").save_model(root / f"seed-{seed}")
    return tuple(f"{root}/seed-{seed}/" for seed in range(2))


def make(cls: type[Stage], photos: Path) -> Stage:
    runtime: dict[str, Any] = {"root": str(photos)}
    config = EXAMPLES[cls.__name__]
    if cls.__name__ in MIX_MODELS:
        config = config | {"models": mixed()}
    if cls.__name__ in ASK_A_SERVER:
        runtime["options"] = {"server": talkative().address("says")}
    return cls(config, runtime)


def encoded(stage: Stage, given: list[Record], workers: int = 2) -> dict[str, bytes]:
    """What a stage gives for records, by their ids; what has none, as in a summary, by its place."""
    out = run(stage, given, workers=workers, on_error="keep")
    return {str(r.id or place): r.encode() for place, r in enumerate(out)}


@every_stage
def test_there_is_an_example(cls: type[Stage]) -> None:
    assert cls.__name__ in EXAMPLES, "add a config for it to EXAMPLES in this file"
    assert cls.verb


@every_stage
def test_the_config_is_json_and_enough_for_another_process(cls: type[Stage], photos: Path) -> None:
    program = """if True:
        import json, sys
        from clipkit.api import run
        from clipkit.stream.record import Record
        from clipkit.stream.stage import load_stage
        stage = load_stage(json.loads(sys.stdin.buffer.readline()))
        records = [Record.parse(line.rstrip(b"\\n"), f"f:{i}") for i, line in enumerate(sys.stdin.buffer)]
        for record in run(stage, records, on_error="keep"):
            sys.stdout.buffer.write(record.encode() + b"\\n")
    """
    here = list(encoded(make(cls, photos), records(cls)).values())
    given = "\n".join([json.dumps(make(cls, photos).spec()), *(r.encode().decode() for r in records(cls))])
    there = subprocess.run([sys.executable, "-c", program], input=given.encode(), capture_output=True, check=True)
    assert there.stdout.splitlines() == here


@every_stage
def test_alone_or_together_in_any_order_on_any_threads(cls: type[Stage], photos: Path) -> None:
    together = encoded(make(cls, photos), records(cls), workers=3)
    backwards = encoded(make(cls, photos), records(cls)[::-1], workers=1)
    assert together == backwards
    if issubclass(cls, WholeStage):
        return  # its answers are about all records there are
    alone: dict[str, bytes] = {}
    for record in records(cls)[:3]:
        alone |= encoded(make(cls, photos), [record])
    assert alone == {name: together[name] for name in alone}


@every_stage
def test_unknown_fields_pass_and_failures_carry_their_reason(cls: type[Stage], photos: Path) -> None:
    stage = make(cls, photos)
    if isinstance(stage, WholeStage) and stage.summarises:
        return  # it writes none of the records
    out = encoded(stage, records(cls))
    for line in out.values():
        record = json.loads(line)
        assert record["x"] == 1.5
        assert set(record) <= {"id", "image", "text", "x", "via", "error", "label", *cls.adds}
    if "image" in cls.reads:
        kinds = {name: json.loads(line)["error"]["type"] for name, line in out.items() if b'"error"' in line}
        assert {"missing.png"} <= set(kinds) <= {"broken.png", "missing.png"}  # a header alone has a size
        assert kinds["missing.png"] == "image-missing"
