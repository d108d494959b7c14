"""Heads: labels or an adapter in one graph, held to `zeroshot` and `apply`."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from clipkit import api
from clipkit.errors import ClipkitError, UsageError
from clipkit.exporting import carried, heads, measuring
from clipkit.exporting.base import Wish
from clipkit.exporting.running import Export, NotTrue, export
from clipkit.exporting.samples import Samples as Pictures
from clipkit.exporting.source import Source
from clipkit.exporting.targets.head import Head
from clipkit.images.decode import decode
from clipkit.images.transform import apply
from clipkit.methods import ADAPTERS
from clipkit.methods.adapters import files
from clipkit.methods.adapters.base import Adapter
from clipkit.methods.adapters.data import Features, Samples, Space, Task, unit
from clipkit.models import exported, lite
from clipkit.models.base import Encoder
from clipkit.models.load import load
from clipkit.models.sessions import open_session
from clipkit.stages.apply import Apply
from clipkit.stages.zeroshot import Zeroshot
from clipkit.text.classifier import classifier
from clipkit.text.labels import Labels
from tests.conftest import ROOT, InProcess
from tests.exporting.conftest import Maker, pictures
from tests.methods.adapters.synthetic import BACKBONE, JOINT, World

ON_FEATURES = [entry.name for entry in ADAPTERS if ADAPTERS.get(entry.name).needs == "features"]
NEAR = 1e-5
LABELS = ("a red thing", "a green thing", "blue")
FEW = {"clip-adapter": {"epochs": 3}, "tip-f": {"epochs": 3}}
QUICK = {
    "lora": {"steps": 3, "lr": 0.05},
    "svd": {"steps": 3, "lr": 0.3},
    "coop": {"epochs": 2, "length": 2, "crops": 0},
}


def answers(folder: Path, pixels: list[np.ndarray]) -> np.ndarray:
    """A head's probabilities [n, C], in plain onnxruntime, each picture alone."""
    session = open_session(folder / "head.onnx", 1)
    return np.concatenate([session.run(["probabilities"], {"pixels": one[None]})[0] for one in pixels])


def check(folder: Path, pixels: list[np.ndarray], preds: list[dict[str, Any]]) -> None:
    """The same labels, and probabilities to 1e-5, as the `pred` of a verb that lists all classes."""
    classes = json.loads((folder / "clipkit.json").read_text())["classes"]
    for row, pred in zip(answers(folder, pixels), preds, strict=True):
        assert classes[row.argmax()] == pred["label"]
        assert dict(pred["topk"]) == pytest.approx(dict(zip(classes, row.tolist(), strict=True)), abs=NEAR)


# The formulas: what follows the features, for every method.


@pytest.fixture(scope="module")
def features_graph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An "image graph" whose pixels [n, 64 + 96] are the features themselves."""
    path = tmp_path_factory.mktemp("features") / "image.onnx"
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("Split", ["pixels", "widths"], ["joint", "backbone"], axis=1)],
        "features",
        [value("pixels", TensorProto.FLOAT, ["batch", JOINT + BACKBONE])],
        [
            value("joint", TensorProto.FLOAT, ["batch", JOINT]),
            value("backbone", TensorProto.FLOAT, ["batch", BACKBONE]),
        ],
        [numpy_helper.from_array(np.array([JOINT, BACKBONE]), "widths")],
    )
    onnx.save(helper.make_model(graph, ir_version=9, opset_imports=[helper.make_opsetid("", 18)]), path)
    return path


@cache
def fitted(name: str, space: Space) -> tuple[Adapter, Samples]:
    world = World(seed=3, classes=5, space=space)
    return ADAPTERS.get(name)().fit(world.samples(6), world.samples(3, prefix="v")), world.samples(8, prefix="t")


def run_steps(graph: Path, steps: heads.Steps, rows: np.ndarray, out: Path) -> tuple[np.ndarray, np.ndarray]:
    heads.write(graph, steps, out)
    probabilities, logits = open_session(out, 1).run(list(heads.OUTPUTS), {"pixels": rows.astype(np.float32)})
    return probabilities, logits


@pytest.mark.parametrize("space", ["joint", "backbone"])
@pytest.mark.parametrize("name", ON_FEATURES)
def test_steps_are_the_methods_own_logits(name: str, space: Space, features_graph: Path, tmp_path: Path) -> None:
    adapter, test = fitted(name, space)
    assert test.features is not None and test.features.backbone is not None
    loud = 7 * test.features.backbone  # as the backbone gives them: of any length
    rows = np.hstack([test.features.joint, loud])
    rows[0, JOINT:] = 0.0
    features = Features(test.features.joint, unit(rows[:, JOINT:]))
    for blend, temperature in ((1.0, 1.0), (1.0, 0.37), (0.4, 2.0), (0.0, 1.0)):
        own = ADAPTERS.get(name)()
        vars(own).update(vars(adapter) | {"blend": blend, "temperature": temperature})
        wanted = own.logits(features)
        probabilities, logits = run_steps(features_graph, heads.adapter_steps(own), rows, tmp_path / "head.onnx")
        held = 3e-8 * np.abs(wanted).max()  # what is lost of weights in f32: these logits go to thousands
        np.testing.assert_allclose(logits, wanted, rtol=1e-6, atol=NEAR + held)
        shares = np.exp(wanted - wanted.max(axis=1, keepdims=True))
        np.testing.assert_allclose(probabilities, shares / shares.sum(axis=1, keepdims=True), atol=NEAR + held)


@pytest.mark.parametrize("name", ["tip", "tip-f"])
def test_votes_of_unequal_and_of_empty_classes(name: str, features_graph: Path, tmp_path: Path) -> None:
    support, test = World(seed=5, classes=4).samples(6), World(seed=5, classes=4).samples(3, prefix="t")
    few = support.take(np.flatnonzero((support.labels != 2) & ((support.labels != 1) | (np.arange(24) < 10))))
    adapter = ADAPTERS.get(name)().fit(few)
    assert test.features is not None and test.features.backbone is not None
    rows = np.hstack([test.features.joint, test.features.backbone])
    _, logits = run_steps(features_graph, heads.adapter_steps(adapter), rows, tmp_path / "head.onnx")
    np.testing.assert_allclose(logits, adapter.logits(test.features), atol=NEAR)


def test_a_method_that_does_not_say_its_steps_is_refused() -> None:
    adapter, _ = fitted("tip", "joint")

    class Odd(type(adapter)):  # type: ignore[misc]
        name = "odd"

        def network(self, made: Any) -> None:
            return None

    own = Odd()
    vars(own).update(vars(adapter))
    with pytest.raises(ClipkitError, match="odd is not linear"):
        heads.adapter_steps(own)


def test_a_bias_of_all_logits_is_in_the_logits_alone(features_graph: Path, tmp_path: Path) -> None:
    """SigLIP's: the softmax, which zeroshot takes of every model, doesn't see it."""
    world = World(seed=1, classes=3)
    rows = np.hstack([world.samples(2).features.joint, np.ones((6, BACKBONE))])  # type: ignore[union-attr]
    plain = run_steps(features_graph, heads.zero_shot_steps(world.task), rows, tmp_path / "a.onnx")
    biased = run_steps(
        features_graph, heads.zero_shot_steps(replace(world.task, bias=-10.0)), rows, tmp_path / "b.onnx"
    )
    np.testing.assert_allclose(biased[0], plain[0], atol=1e-7)
    np.testing.assert_allclose(biased[1], plain[1] - 10, atol=NEAR)


def test_backbone_features_that_are_not_there(features_graph: Path, tmp_path: Path) -> None:
    model = onnx.load(features_graph)
    del model.graph.output[1]
    onnx.save(model, tmp_path / "image.onnx")
    with pytest.raises(ClipkitError, match="works on backbone features"):
        heads.write(tmp_path / "image.onnx", heads.adapter_steps(fitted("gda", "backbone")[0]), tmp_path / "head.onnx")


# lite


@pytest.fixture(scope="module")
def lite_graph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return carried.image_graph(tmp_path_factory.mktemp("lite") / "image.onnx")


def test_lites_graph_is_lite_at_any_batch(lite_graph: Path) -> None:
    encoder, session = lite.load(), open_session(lite_graph, 1)
    pixels = np.stack([apply(lite.encoder.PREPROCESS, picture) for picture in pictures(5)])
    joint, backbone = encoder.encode_images(pixels, backbone=True)
    alone = [session.run(["joint", "backbone"], {"pixels": one[None]}) for one in pixels]
    for rows in (1, 2, 5):
        found = session.run(["joint", "backbone"], {"pixels": pixels[:rows]})
        assert np.array_equal(found[1], backbone[:rows])
        np.testing.assert_allclose(found[0], joint[:rows], atol=1e-6)
        for row in range(rows):
            assert np.array_equal(found[0][row], alone[row][0][0])


def test_of_the_image_graph_only_what_the_head_needs_is_there(lite_graph: Path, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    task = Task(("a", "b"), unit(random.standard_normal((2, 512))), 20.0, space="backbone")
    labels = np.array([0, 0, 1, 1])
    features = Features(unit(random.standard_normal((4, 512))), unit(random.standard_normal((4, 1280))))
    sizes = {}
    for zero_shot in (True, False):
        adapter = ADAPTERS.get("linear")(zero_shot=zero_shot).fit(Samples(task, labels, features, names=list("stuv")))
        heads.write(lite_graph, heads.adapter_steps(adapter), tmp_path / "head.onnx")
        sizes[zero_shot] = (tmp_path / "head.onnx").stat().st_size
        assert open_session(tmp_path / "head.onnx", 1).get_inputs()[0].name == "pixels"
    assert sizes[False] < 0.6 * sizes[True]  # without the joint features: their thousand classes, anchors and maps


# Real pictures


@pytest.fixture(scope="module")
def shop(shared_data_module: Path, tmp_path_factory: pytest.TempPathFactory) -> Shop:
    return Shop(shared_data_module / "classification" / "clothing", tmp_path_factory.mktemp("shop"))


class Shop:
    """Pictures of clothes: 4 a class to learn from, and those that are asked about; lite's features are made once."""

    def __init__(self, data: Path, scratch: Path) -> None:
        self.records = [json.loads(line) for line in (data / "manifest.jsonl").read_text().splitlines()]
        self.data, self.scratch, self.encoder = data, scratch, lite.load()
        self.runtime = {"cache": str(scratch / "cache"), "cache_bytes": 1 << 30, "root": str(data)}
        self.classes = sorted({record["label"] for record in self.records})
        self.adapters: dict[str, Path] = {}

    def pixels(self, record: dict[str, Any]) -> np.ndarray:
        return self.encoder.preprocess(decode((self.data / record["image"]).read_bytes()))

    def asked(self, every: int) -> list[dict[str, Any]]:
        return [{"id": r["id"], "image": str(self.data / r["image"])} for r in self.records if r["split"] == "test"][
            ::every
        ]

    @cache  # noqa: B019
    def support(self) -> Samples:
        shown = [
            record
            for name in self.classes
            for record in [r for r in self.records if r["label"] == name and r["split"] == "train"][:4]
        ]
        joint, backbone = self.encoder.encode_images(np.stack([self.pixels(r) for r in shown]), backbone=True)
        assert backbone is not None
        text = classifier(self.encoder, Labels(tuple(self.classes)), self.encoder.default_templates)
        prompts = tuple((f"a photo of a {name}.",) for name in self.classes)
        task = Task(tuple(self.classes), text, self.encoder.logit_scale, None, "backbone", prompts)
        labels = np.repeat(np.arange(len(self.classes)), 4)
        return Samples(task, labels, Features(joint, unit(backbone)), names=[r["id"] for r in shown])

    def adapter(self, name: str, temperature: float = 0.5) -> Path:
        if name not in self.adapters:
            made = ADAPTERS.get(name)(**FEW.get(name, {})).fit(self.support())
            made.temperature = temperature
            files.save(self.scratch / f"{name}.adapter", made, self.encoder.identity, {"shots": 4})
            self.adapters[name] = self.scratch / f"{name}.adapter"
        return self.adapters[name]


@pytest.fixture(scope="module")
def shared_data_module() -> Path:
    folder = Path(__file__).parents[2].parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("needs the data folder ../shared/data")
    return folder


def check_adapter(shop: Shop, make: Maker, folder: Path, name: str, every: int) -> None:
    adapter, given = shop.adapter(name), shop.asked(every)
    make("head", Source(None, str(adapter), folder.parent), folder, adapter=str(adapter))
    stage = Apply({"adapter": str(adapter), "top_k": 99}, shop.runtime)
    preds = [record["pred"] for record in api.run(stage, given, workers=1)]
    check(folder, [shop.pixels(record) for record in given], preds)


@pytest.mark.parametrize("name", ON_FEATURES)
def test_a_head_answers_as_apply_does(name: str, shop: Shop, make: Maker, tmp_path: Path) -> None:
    check_adapter(shop, make, tmp_path / "head", name, every=28)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gda", "tip-f"])  # linear in the features, and not
def test_a_head_answers_as_apply_does_of_every_picture(name: str, shop: Shop, make: Maker, tmp_path: Path) -> None:
    check_adapter(shop, make, tmp_path / "head", name, every=1)


@pytest.mark.parametrize("templates", [(), ("a photo of a {}.", "{} on a bed")])
def test_a_head_of_labels_answers_as_zeroshot_does(
    templates: tuple[str, ...], shop: Shop, make: Maker, tmp_path: Path
) -> None:
    given, labels = shop.asked(28), Labels(tuple(shop.classes))
    make("head", "lite", tmp_path / "head", labels=",".join(labels.names), templates=templates)
    config = {"labels": labels.to_json(), "templates": list(templates), "top_k": 99}
    preds = [record["pred"] for record in api.run(Zeroshot(config, shop.runtime), given, workers=1)]
    check(tmp_path / "head", [shop.pixels(record) for record in given], preds)


# Models of open_clip


@pytest.mark.parametrize("arch", ["tiny-vit", "tiny-vit-sigmoid"])
def test_labels_by_a_model_of_open_clip(
    arch: str, source: Callable[[str], Source], make: Maker, tmp_path: Path
) -> None:
    made = source(arch)
    make("head", made, tmp_path / "head", labels=",".join(LABELS), templates=("a {}.", "{}"))
    manifest = json.loads((tmp_path / "head" / "clipkit.json").read_text())
    assert manifest["identity"]["digest"] == made.encoder.identity.digest
    given = saved(tmp_path, 4)
    config = {"labels": list(LABELS), "templates": ["a {}.", "{}"], "model": made._named}
    preds = [record["pred"] for record in api.run(Zeroshot(config), given, workers=1)]
    check(tmp_path / "head", [made.encoder.preprocess(decode(Path(r["image"]).read_bytes())) for r in given], preds)


@pytest.mark.parametrize("name", ["lora", pytest.param("svd", marks=pytest.mark.slow), "coop"])
def test_adapters_of_the_model_itself(name: str, source: Callable[[str], Source], make: Maker, tmp_path: Path) -> None:
    """lora and svd change the towers, and classes are what the changed one says of their prompts; coop is linear."""
    model = source("tiny-vit")._named
    assert model is not None
    encoder, given = load(model), saved(tmp_path, 6)
    pixels = [encoder.preprocess(decode(Path(record["image"]).read_bytes())) for record in given]
    prompts = tuple((f"{label}.",) for label in LABELS)
    text = classifier(encoder, Labels(LABELS), ("{}.",))
    task = Task(LABELS, text, encoder.logit_scale, encoder.logit_bias, "joint", prompts, encoder)
    support = Samples(task, np.repeat(np.arange(3), 2), pictures=Shown(pixels), names=[r["id"] for r in given])
    adapter = ADAPTERS.get(name)(**QUICK[name]).fit(support)
    adapter.blend = 0.7
    files.save(tmp_path / "adapter", adapter, encoder.identity, {"shots": 2})
    asked = str(tmp_path / "adapter")
    make("head", Source(model, asked, tmp_path), tmp_path / "head", adapter=asked)
    preds = [record["pred"] for record in api.run(Apply({"adapter": asked, "model": model}), given, workers=1)]
    plain = [record["pred"] for record in api.run(Zeroshot({"labels": list(LABELS), "model": model}), given, workers=1)]
    assert preds != plain
    check(tmp_path / "head", pixels, preds)


class Shown:
    def __init__(self, pixels: list[np.ndarray]) -> None:
        self._pixels = pixels

    def __len__(self) -> int:
        return len(self._pixels)

    def pixels(self, row: int, view: int = 0) -> np.ndarray:
        return self._pixels[row]


def saved(folder: Path, count: int) -> list[dict[str, Any]]:
    """Pictures in files, as records."""
    for number, picture in enumerate(pictures(count)):
        picture.save(folder / f"{number}.png")
    return [{"id": f"{number}.png", "image": str(folder / f"{number}.png")} for number in range(count)]


# The folder


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("photo") / "photo.png"
    pictures(1)[0].save(path)
    return path


@pytest.mark.parametrize("raw", [False, True])
def test_the_folder_runs_without_clipkit(raw: bool, make: Maker, photo: Path, tmp_path: Path) -> None:
    folder = tmp_path / "head"
    (tmp_path / "labels.json").write_text(json.dumps(["two\nlines", "dögs", "cats"]))
    make("head", "lite", folder, labels=f"@{tmp_path / 'labels.json'}", embed_preprocessing=raw)
    assert (folder / "labels.txt").read_text(encoding="utf-8") == "two lines\ndögs\ncats\n"
    manifest = json.loads((folder / "clipkit.json").read_text(encoding="utf-8"))
    assert manifest["classes"] == ["two\nlines", "dögs", "cats"]
    assert manifest["files"].keys() == {"head.onnx", "labels.txt", "run.py"}
    said = subprocess.run(
        [sys.executable, "-I", "-X", "importtime", str(folder / "run.py"), str(photo)],
        capture_output=True,
        encoding="utf-8",
        check=True,
        env={"PYTHONUTF8": "1"},
    )
    assert " clipkit" not in said.stderr and "onnxruntime" in said.stderr
    encoder, image = lite.load(), Image.open(photo).convert("RGB")
    joint, _ = encoder.encode_images(encoder.preprocess(image)[None])
    text = classifier(encoder, Labels(tuple(manifest["classes"])), encoder.default_templates)
    logits = encoder.logit_scale * (joint @ text.T)[0]
    shares = np.exp(logits) / np.exp(logits).sum()
    told = dict(re.findall(r"^([^\t]+)\t(0\.\d{6})$", said.stdout, flags=re.MULTILINE))
    assert list(told) == [manifest["classes"][number] for number in np.argsort(-shares)]
    assert [float(value) for value in told.values()] == pytest.approx(sorted(shares)[::-1], abs=2e-2 if raw else NEAR)
    for given, answer in (([], "    python run.py photo.jpg\n\n"), (["no.jpg"], "there is no file no.jpg\n")):
        refused = subprocess.run([sys.executable, "-I", folder / "run.py", *given], capture_output=True, text=True)
        assert refused.returncode == 1 and refused.stdout == "" and refused.stderr.endswith(answer)
        assert "Traceback" not in refused.stderr


@pytest.fixture
def _quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(measuring, "_ALONE", 1)
    yield


@pytest.mark.usefixtures("_quick")
@pytest.mark.parametrize("int8", [None, "weights"])
def test_the_report_is_about_answers(int8: Any, samples: Pictures, tmp_path: Path) -> None:
    wish = Wish(labels="cats,dogs,boats", int8=int8)
    asked = Export(model="lite", target="head", wish=wish, out=str(tmp_path / "h"), samples=lambda: samples)
    report = export(replace(asked, isolate=False, min_agreement=0.0))
    assert report["towers"] == ["image"] and report["facts"]["classes"] == 3
    assert report["figures"]["agreement"]["n"] == len(samples.pictures)
    off = report["figures"]["probabilities"]["largest_difference"]
    assert off < 1e-6 if int8 is None else 1e-6 < off < 0.1
    manifest = json.loads((tmp_path / "h" / "clipkit.json").read_text())
    assert manifest["row_independent"] is (int8 is None)
    assert (tmp_path / "h" / "head.onnx").stat().st_size < (13e6 if int8 is None else 8e6)


@pytest.mark.usefixtures("_quick")
def test_answers_that_differ_leave_nothing(samples: Pictures, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heads.Steps, "unit", lambda self, rows: rows)
    monkeypatch.setattr(heads.Steps, "times", lambda self, rows, number: rows)  # the scale is lost
    wish = Wish(labels="cats,dogs,boats")
    asked = Export(model="lite", target="head", wish=wish, out=str(tmp_path / "h"), samples=lambda: samples)
    with pytest.raises(NotTrue, match="cosine"):
        export(replace(asked, isolate=False))
    assert list(tmp_path.iterdir()) == []


def test_a_head_is_no_model(make: Maker, tmp_path: Path, in_process: InProcess) -> None:
    make("head", "lite", tmp_path / "h", labels="cats,dogs")
    with pytest.raises(ClipkitError, match="is a head") as refused:
        exported.load(tmp_path / "h")
    assert refused.value.hint == f"run it: python {tmp_path / 'h' / 'run.py'} PHOTO"
    done = in_process("zeroshot", ROOT / "samples" / "cat.jpg", "--labels", "a,b", "--model", tmp_path / "h")
    assert done.code == 2 and done.stderr.startswith("clipkit zeroshot:") and "is a head" in done.stderr


@pytest.mark.parametrize(
    ("wish", "said"),
    [
        ({}, "a head of which labels"),
        ({"labels": "cats,cats"}, "named twice"),
        ({"labels": "@none.txt"}, "cannot read the labels"),
        ({"labels": "cats,dogs", "adapter": "a.adapter"}, "labels of its own"),
        ({"labels": "cats,dogs", "towers": ("text",)}, "no text tower"),
        ({"labels": "cats,dogs", "external_data": True}, "--to head takes no --external-data: onnx and fp16 do"),
    ],
)
def test_what_cannot_be_asked(wish: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        Head(Wish(**wish))


def test_labels_that_cannot_be_told_apart(make: Maker, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="would win every picture"):
        make("head", "lite", tmp_path / "h", labels="cats")
    (tmp_path / "labels.json").write_text(json.dumps({"cat": "a cat", "dog": "a dog"}))
    with pytest.raises(UsageError, match="every label has descriptions"):
        make("head", "lite", tmp_path / "h", labels=f"@{tmp_path / 'labels.json'}", templates=("a {}",))


def small_adapter(folder: Path, encoder: Encoder, **changes: Any) -> str:
    random = np.random.default_rng(0)
    dims = encoder.identity.dim, encoder.backbone_dim or 0
    task = Task(("a", "b"), unit(random.standard_normal((2, dims[0]))), 20.0, space="backbone")
    features = Features(*(unit(random.standard_normal((4, dim))) for dim in dims))
    adapter = ADAPTERS.get("ridge")().fit(Samples(task, np.array([0, 0, 1, 1]), features, names=list("stuv")))
    adapter.state_ |= changes
    files.save(folder, adapter, encoder.identity, {})
    return str(folder)


def test_a_damaged_adapter_and_one_of_another_model(
    make: Maker, source: Callable[[str], Source], tmp_path: Path
) -> None:
    short = small_adapter(tmp_path / "short", lite.load(), weights=np.zeros((2, 7), np.float32))
    with pytest.raises(ClipkitError, match="is damaged"):
        make("head", Source(None, short, tmp_path), tmp_path / "h", adapter=short)
    good = small_adapter(tmp_path / "good", lite.load())
    with pytest.raises(ClipkitError, match="the adapter was made for lite@"):
        Source(source("tiny-vit")._named, good, tmp_path)
