"""torch.export's programs: what they hold, and what is refused before torch reads it."""

from __future__ import annotations

import json
import pickle
import resource
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from clipkit import load
from clipkit.errors import ClipkitError
from clipkit.exporting.source import Source
from clipkit.exporting.targets.torch_export import save
from clipkit.models import torch_program
from tests.conftest import InProcess
from tests.exporting.conftest import Builder, Maker, pictures
from tests.exporting.scripts import check_script

TEXTS = ["a cat", "two dogs in the rain, and a boat behind them", "", "x", "a photo of a tree"]
MODEL = "models/model.json"


@pytest.fixture(scope="session")
def folder(built: Builder) -> Callable[[str], Path]:
    return lambda arch: built("torch.export", arch)[0]


@pytest.mark.parametrize("rows", [1, 2, 5])
def test_plain_torch_runs_any_batch(rows: int, folder: Callable[[str], Path], source: Callable[[str], Source]) -> None:
    program = torch.export.load(str(folder("tiny-vit") / "image.pt2")).module()
    batch = source("tiny-vit").example("image", rows)
    with torch.inference_mode():
        joint, backbone = program(batch)
    assert joint.shape == (rows, 32)
    assert backbone.shape == (rows, 64)


def test_rows_do_not_depend_on_their_neighbours(folder: Callable[[str], Path]) -> None:
    encoder = load(f"{folder('tiny-vit')}/")
    batch = np.stack([encoder.preprocess(picture) for picture in pictures(6)])
    whole = encoder.encode_images(batch)[0]
    for part in (slice(0, 1), slice(3, 5), slice(2, 6)):
        assert np.array_equal(encoder.encode_images(batch[part])[0], whole[part])
    assert np.array_equal(encoder.encode_texts(TEXTS[::-1])[::-1], encoder.encode_texts(TEXTS))


@pytest.mark.parametrize("arch", ["tiny-vit", pytest.param("tiny-coca", marks=pytest.mark.slow)])
def test_each_tower_holds_its_own_weights_alone(
    arch: str, folder: Callable[[str], Path], source: Callable[[str], Source]
) -> None:
    text = torch.export.load(str(folder(arch) / "text.pt2"))
    names = {name.removeprefix("model.") for name in text.state_dict}
    assert names
    assert not [name for name in names if name.startswith(("visual.", "text_decoder.", "logit_scale"))]
    image = torch.export.load(str(folder(arch) / "image.pt2"))
    needed = sum(value.numel() for value in source(arch).module("image").parameters())
    assert sum(value.numel() for value in image.state_dict.values()) <= needed


def test_nothing_of_the_machine_is_in_it(folder: Callable[[str], Path]) -> None:
    """torch writes the stack of every operator into a program, with the paths of its files."""
    for tower in ("image", "text"):
        content = (folder("tiny-vit") / f"{tower}.pt2").read_bytes()
        assert b".py" not in content
        assert b"clipkit" not in content


class Bomb:
    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return (_explode, ("pickle",))


def _explode(what: str) -> None:
    raise AssertionError(f"{what} was run")


def change(part: str, edit: Callable[[Any], Any]) -> Callable[[dict[str, bytes]], None]:
    """An edit of one JSON file of an archive."""

    def apply(files: dict[str, bytes]) -> None:
        value = json.loads(files[part])
        files[part] = json.dumps(edit(value) or value).encode()

    return apply


def node(program: dict[str, Any], index: int = 3) -> dict[str, Any]:
    found: dict[str, Any] = program["graph_module"]["graph"]["nodes"][index]
    return found


def renamed(program: dict[str, Any]) -> dict[str, Any]:
    name = node(program)["outputs"][0]["as_tensor"]["name"]
    code = "__import__('os').abort()"
    changed: dict[str, Any] = json.loads(json.dumps(program).replace(f'"{name}"', json.dumps(code)))
    return changed


def first_size(program: dict[str, Any]) -> dict[str, Any]:
    values = program["graph_module"]["graph"]["tensor_values"].values()
    return next(size["as_expr"] for value in values for size in value["sizes"] if "as_expr" in size)


HOSTILE: dict[str, Callable[[dict[str, bytes]], Any]] = {
    "pickled weights": change(
        "data/weights/model_weights_config.json",
        lambda config: next(iter(config["config"].values())).update(use_pickle=True),
    ),
    "an object among the constants": change(
        "data/constants/model_constants_config.json",
        lambda config: config["config"].update(
            x={"path_name": "opaque_obj_0", "is_param": False, "use_pickle": True, "tensor_meta": None}
        ),
    ),
    "pickled inputs": lambda files: files.update({"data/sample_inputs/model.pt": pickle.dumps(Bomb())}),
    "the older form of weights": lambda files: files.update({"data/weights/model.pt": pickle.dumps(Bomb())}),
    "a compiled library": lambda files: files.update({"data/aotinductor/model/x.so": b""}),
    "a function of torch": change(MODEL, lambda program: node(program).update(target="torch.os.abort")),
    "a function behind aten": change(MODEL, lambda program: node(program).update(target="torch.ops.aten.__dir__.x")),
    "a file": change(MODEL, lambda program: node(program).update(target="torch.ops.aten.from_file.default")),
    "another library's operator": change(
        MODEL, lambda program: node(program).update(target="torch.ops.evil.x.default")
    ),
    "an operator's attribute": change(MODEL, lambda program: node(program).update(target="_operator.methodcaller")),
    "code as a size": change(MODEL, lambda program: first_size(program).update(expr_str="__import__('os').abort()")),
    "code in a size": change(
        MODEL, lambda program: first_size(program).update(expr_str="Mul(Integer(2), (lambda: 1)())")
    ),
    "code as a name": change(MODEL, renamed),
    "code as a guard": change(MODEL, lambda program: program.update(guards_code=["__import__('os').abort()"])),
    "metadata": change(MODEL, lambda program: node(program).update(metadata={"stack_trace": "x"})),
    "another type as input": change(
        MODEL,
        lambda program: program["graph_module"]["module_call_graph"][0]["signature"].update(
            in_spec='[1, {"type": "os.abort", "context": "null", "children_spec": []}]'
        ),
    ),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_more_than_a_network_is_refused(kind: str, folder: Callable[[str], Path], tmp_path: Path) -> None:
    with zipfile.ZipFile(folder("tiny-vit") / "image.pt2") as archive:
        root = archive.namelist()[0].partition("/")[0]
        files = {name.removeprefix(f"{root}/"): archive.read(name) for name in archive.namelist()}
    before = dict(files)
    HOSTILE[kind](files)
    assert files != before
    with zipfile.ZipFile(tmp_path / "image.pt2", "w") as archive:
        for name, content in files.items():
            archive.writestr(f"{root}/{name}", content)
    with pytest.raises(ClipkitError, match="holds more than a network: ") as caught:
        torch_program.load(tmp_path / "image.pt2")
    assert "\n" not in caught.value.message


def test_an_archive_that_only_was_packed_again_is_read(folder: Callable[[str], Path], tmp_path: Path) -> None:
    """So that the test above refuses what was changed, not how it was packed."""
    with (
        zipfile.ZipFile(folder("tiny-vit") / "image.pt2") as archive,
        zipfile.ZipFile(tmp_path / "image.pt2", "w") as again,
    ):
        for name in archive.namelist():
            again.writestr(name, archive.read(name))
    assert torch_program.load(tmp_path / "image.pt2")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"no archive at all"])
def test_what_is_no_archive_is_one_line(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "image.pt2").write_bytes(content)
    with pytest.raises(ClipkitError, match="cannot read") as caught:
        torch_program.load(tmp_path / "image.pt2")
    assert "\n" not in caught.value.message


def test_a_verb_runs_it(folder: Callable[[str], Path], in_process: InProcess, tmp_path: Path) -> None:
    pictures(1)[0].save(tmp_path / "a.png")
    run = in_process("zeroshot", tmp_path / "a.png", "--labels", "cat,dog", "--model", f"{folder('tiny-vit')}/")
    assert run.code == 0, run.stderr
    assert json.loads(run.stdout)["pred"]["label"] in ("cat", "dog")


def test_lite_has_no_torch_model(make: Maker, tmp_path: Path) -> None:
    with pytest.raises(ClipkitError, match=r"lite.* is no model of open_clip"):
        make("torch.export", "lite", tmp_path / "out", towers=("image",))


def test_its_script_gives_the_same_answers(
    folder: Callable[[str], Path], source: Callable[[str], Source], tmp_path: Path
) -> None:
    check_script(folder("tiny-vit"), source("tiny-vit").encoder, tmp_path)


def test_a_full_disk_is_an_error_and_not_the_end_of_the_process(
    source: Callable[[str], Source], tmp_path: Path
) -> None:
    """torch's writer would end it: a write that fails fails again where the file is closed."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, before[1]))  # Python ignores SIGXFSZ
    try:
        with pytest.raises(OSError, match="File too large"):
            save(source("tiny-vit"), "image", tmp_path / "image.pt2")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
