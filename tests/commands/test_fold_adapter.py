"""`clipkit fold-adapter`: a head is the adapter's logits and nothing else; what cannot be folded is told."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from clipkit import cli
from clipkit.errors import ClipkitError
from clipkit.features.store import Store
from clipkit.methods.adapters import files
from clipkit.methods.adapters.head_file import load_head
from tests.conftest import Runner
from tests.fitted import CLASSES, FROM_FEATURES, NOT_LINEAR, features, lite, pictures, saved

LINEAR = [method for method in FROM_FEATURES if method not in NOT_LINEAR]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return pictures(tmp_path_factory.mktemp("fold") / "photos")


@pytest.fixture(scope="module")
def adapter(photos: list[Path]) -> Path:
    return saved("gda", photos, photos[0].parent.parent / "parts.adapter")


@pytest.fixture
def head(adapter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    assert cli.run(["fold-adapter", str(adapter), "-o", str(tmp_path / "head.safetensors")]) == 0
    capsys.readouterr()
    return tmp_path / "head.safetensors"


@pytest.mark.parametrize("space", ["joint", "backbone"])
@pytest.mark.parametrize("method", LINEAR)
def test_the_product_of_the_file_is_the_adapters_logits(
    photos: list[Path], method: str, space: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By the file alone, as anybody's program would use it."""
    folder = saved(method, photos, tmp_path / "an.adapter", "joint" if space == "joint" else "backbone")
    out = tmp_path / "head.safetensors"
    assert cli.run(["fold-adapter", str(folder), "-o", str(out), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["kind"], said["method"], said["classes"]) == ("head", method, len(CLASSES))
    rows = features(photos)
    by = {"joint": rows.joint, "backbone": rows.backbone}
    tensors = load_file(out)
    logits = tensors.pop("bias") + sum(by[name].astype(np.float64) @ weights.T for name, weights in tensors.items())
    assert set(tensors) <= {"joint", space}
    made = files.load(folder)
    np.testing.assert_allclose(logits, made.adapter.logits(rows), rtol=0, atol=1e-9)
    read = load_head(str(out))
    assert (read.classes, read.via, str(lite().identity)) == (
        CLASSES,
        made.via,
        f"{read.model.name}@{read.model.digest}",
    )
    assert np.array_equal(read.head.logits(rows), made.adapter.logits(rows))


def test_the_formula_in_the_file_with_the_rows_of_a_store_is_what_apply_says(
    photos: list[Path], adapter: Path, head: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = tmp_path / "feats"
    assert cli.run(["embed", str(photos[0].parent), "-o", str(store), "--backbone", "--no-cache"]) == 0
    capsys.readouterr()
    assert cli.run(["apply", str(adapter), str(photos[0].parent), "--features", str(store)]) == 0
    records = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    unit = "unit: each row divided by its length"
    formula = f"logits = unit(joint features) @ joint.T + unit(backbone features) @ backbone.T + bias; {unit}"
    assert metadata(head)["formula"] == formula
    ids, tensors = [record["id"] for record in records], load_file(head)
    logits = tensors["bias"]
    for name, output in (("joint", "image"), ("backbone", "backbone")):
        rows = Store(store).features(ids, output).astype(np.float64)
        logits = logits + rows / np.linalg.norm(rows, axis=1, keepdims=True) @ tensors[name].T
    found = np.exp(logits - logits.max(axis=1, keepdims=True))
    found /= found.sum(axis=1, keepdims=True)
    for record, row in zip(records, found, strict=True):
        told = dict(record["pred"]["topk"])
        np.testing.assert_allclose(row, [told[name] for name in CLASSES], rtol=0, atol=1e-5)


@pytest.mark.parametrize("method", NOT_LINEAR)
def test_what_is_not_linear_says_so(photos: list[Path], method: str, tmp_path: Path, clipkit: Runner) -> None:
    folder = saved(method, photos, tmp_path / "an.adapter")
    done = clipkit("fold-adapter", folder, "-o", "head.safetensors")
    assert (done.code, done.stdout) == (1, "")
    first, hint = done.stderr.splitlines()
    assert first == f"clipkit fold-adapter: {method} is not linear in the features: no head gives its logits"
    assert hint == f"hint: use the adapter itself: clipkit apply {folder} SOURCE"
    assert not (tmp_path / "head.safetensors").exists()


def test_the_blend_it_was_saved_with_is_in_the_head(photos: list[Path], adapter: Path, tmp_path: Path) -> None:
    said = json.loads((adapter / files.MANIFEST).read_text())
    half = tmp_path / "half.adapter"
    half.mkdir()
    (half / files.MANIFEST).write_text(json.dumps(said | {"blend": 0.5}))
    (half / files.TENSORS).write_bytes((adapter / files.TENSORS).read_bytes())
    out = str(tmp_path / "head.safetensors")
    assert cli.run(["fold-adapter", str(half), "-o", out]) == 0
    rows = features(photos)
    np.testing.assert_allclose(load_head(out).head.logits(rows), files.load(half).adapter.logits(rows), atol=1e-9)


def test_what_people_read(adapter: Path, clipkit: Runner) -> None:
    done = clipkit("fold-adapter", adapter, "-o", "head.safetensors")
    over = f"{lite().identity.dim} joint and 1,280 backbone features of {lite().identity}"
    assert done.stdout == f"head.safetensors: a head of 3 classes over {over}\n"
    assert done.stderr == ""


def test_the_same_bytes_each_time_and_over_an_old_one(adapter: Path, head: Path) -> None:
    before = head.read_bytes()
    head.write_bytes(b"an old one")
    assert cli.run(["fold-adapter", str(adapter), "-o", str(head)]) == 0
    assert head.read_bytes() == before
    assert list(head.parent.iterdir()) == [head]
    modes = {path.stat().st_mode for path in (head, *adapter.iterdir())}
    assert len(modes) == 1, "who may read one may read all"


def without_bias(head: Path) -> None:
    rewrite(head, drop="bias")


def of_two_classes(head: Path) -> None:
    rewrite(head, classes='["a","b"]')


def torn(head: Path) -> None:
    head.write_bytes(head.read_bytes()[:-100])


def of_centroids(head: Path) -> None:
    rewrite(head, kind="centroids")


def of_tomorrow(head: Path) -> None:
    rewrite(head, format="2")


def of_single_precision(head: Path) -> None:
    tensors = load_file(head)
    save_file({name: tensor.astype(np.float32) for name, tensor in tensors.items()}, head, metadata(head))


def metadata(head: Path) -> dict[str, str]:
    from safetensors import safe_open

    with safe_open(head, "numpy") as file:
        return dict(file.metadata())


def rewrite(head: Path, drop: str = "", **said: str) -> None:
    tensors = {name: tensor for name, tensor in load_file(head).items() if name != drop}
    save_file(tensors, head, metadata(head) | said)


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (without_bias, "is damaged or no head: 'bias'"),
        (of_two_classes, "for 2 classes"),
        (torn, "is damaged or no head"),
        (of_centroids, "holds no head"),
        (of_tomorrow, "newer clipkit"),
        (of_single_precision, "float32"),
        (Path.unlink, "there is no such file"),
    ],
)
def test_what_is_no_head_is_refused(head: Path, harm: object, said: str) -> None:
    assert callable(harm)
    harm(head)
    with pytest.raises(ClipkitError, match=said):
        load_head(str(head))


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["parts.adapter"], 2, "missing option '-o'"),
        (["part.adapter", "-o", "h.safetensors"], 1, "did you mean parts.adapter?"),
        (["photos", "-o", "h.safetensors"], 1, "photos is no adapter"),
        (["parts.adapter", "-o", "photos"], 2, "-o photos is a folder"),
        (["parts.adapter", "-o", "h/"], 2, "a head is one file"),
        (["parts.adapter", "-o", "no/h.safetensors"], 2, "there is no folder 'no'"),
        (["parts.adapter", "-o", "parts.adapter/adapter.safetensors"], 2, "is a file of the adapter"),
    ],
)
def test_a_wrong_command_line_is_one_line_and_a_hint(
    adapter: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    code: int,
    said: str,
) -> None:
    monkeypatch.chdir(adapter.parent)
    before = {path.name: path.read_bytes() for path in adapter.iterdir()}
    assert cli.run(["fold-adapter", *words]) == code
    out, err = capsys.readouterr()
    assert out == "" and said in err and len(err.splitlines()) <= 2, err
    assert {path.name: path.read_bytes() for path in adapter.iterdir()} == before
