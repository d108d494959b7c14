"""The target onnx: what travels, what lies beside, and the traps of torch's exporter."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from clipkit.errors import ClipkitError, UsageError
from clipkit.exporting import files, graphs
from clipkit.exporting.base import Wish
from clipkit.exporting.quiet import hushed
from clipkit.exporting.source import Source
from clipkit.exporting.targets.onnx import OPSETS, Onnx
from clipkit.models.load import load
from tests.conftest import InProcess
from tests.exporting.conftest import Maker, pictures


def manifest(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "clipkit.json").read_text())
    return found


def test_weights_beside(make: Maker, source: Callable[[str], Source], tmp_path: Path) -> None:
    make("onnx", source("tiny-vit"), tmp_path / "two", external_data=True)
    folder = tmp_path / "two"
    listed = {"image.onnx", "image.onnx.data", "text.onnx", "text.onnx.data", "tokenizer.json"}
    assert set(manifest(folder)["files"]) == listed
    assert {path.name for path in folder.iterdir()} == listed | {"clipkit.json", "run.py"}
    assert (folder / "image.onnx").stat().st_size < 100_000 < (folder / "image.onnx.data").stat().st_size
    encoder, whole = load(str(folder)), source("tiny-vit").encoder
    np.testing.assert_allclose(encoder.encode_texts(["a cat"]), whole.encode_texts(["a cat"]), atol=1e-5)
    encoder.encode_images([encoder.preprocess(pictures(1)[0])])


def test_weights_beside_are_checked_and_exported_again(
    make: Maker, source: Callable[[str], Source], tmp_path: Path
) -> None:
    folder, again = tmp_path / "two", tmp_path / "one"
    make("onnx", source("tiny-vit"), folder, external_data=True)
    make("onnx", f"{folder}/", again)
    assert load(str(again)).encode_texts(["a cat"]).shape == (1, 32)
    (folder / "text.onnx.data").write_bytes(b"0" * (folder / "text.onnx.data").stat().st_size)
    with pytest.raises(ClipkitError, match=r"text\.onnx\.data is not the file that was exported"):
        load(str(folder)).encode_texts(["a cat"])
    (folder / "text.onnx.data").unlink()
    with pytest.raises(ClipkitError, match=r"lacks the file text\.onnx\.data"):
        load(str(folder))


def test_what_no_single_file_holds_lies_in_two(
    make: Maker, source: Callable[[str], Source], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With protobuf's 2 GiB made small: torch must write two files, and two must ship, though nobody asked."""
    monkeypatch.setattr(files, "ONE_FILE", 100_000)
    alone = Source.__new__(Source)
    alone.__dict__.update(source("tiny-vit").__dict__, _graphs={}, _scratch=tmp_path)
    assert alone.graph("image").stat().st_size < 100_000 < (tmp_path / "image.onnx.data").stat().st_size
    make("onnx", alone, tmp_path / "model", towers=("image",))
    assert set(manifest(tmp_path / "model")["files"]) == {"image.onnx", "image.onnx.data"}
    shutil.rmtree(tmp_path / "raw", ignore_errors=True)
    make("onnx", alone, tmp_path / "raw", towers=("image",), embed_preprocessing=True)
    assert set(manifest(tmp_path / "raw")["files"]) == {"image.onnx", "image.onnx.data"}
    encoder = load(str(tmp_path / "raw"))
    assert encoder.encode_images([encoder.preprocess(pictures(1)[0])])[0].shape == (1, 32)


class Small(nn.Module):
    """What a text tower is made of, once: torch's exporter takes seconds for more."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.attention = nn.Embedding(400, 8), nn.MultiheadAttention(8, 2, batch_first=True)
        self.eval()

    def forward(self, tokens: torch.Tensor) -> tuple[torch.Tensor]:
        rows = self.embedding(tokens)
        return (nn.functional.normalize(self.attention(rows, rows, rows, need_weights=False)[0][:, 0], dim=-1),)


TOKENS = graphs.example("text", (1, 1), 6, 2)


@pytest.mark.parametrize("opset", [OPSETS[0], OPSETS[-1]])
def test_an_opset_that_can_be_had(tmp_path: Path, opset: int) -> None:
    path = tmp_path / "text.onnx"
    assert graphs.export_onnx(Small(), "text", TOKENS, path, opset) == opset
    assert files.opset_of(path) == opset


def test_an_opset_that_torch_silently_replaces(tmp_path: Path) -> None:
    with pytest.raises(ClipkitError, match="opset 17 was asked for, and 18 came out"):
        graphs.export_onnx(Small(), "text", TOKENS, tmp_path / "text.onnx", 17)


@pytest.mark.parametrize("opset", [1, 17, OPSETS[-1] + 1])
def test_an_opset_that_cannot_be_had_is_refused_before_any_work(opset: int) -> None:
    with pytest.raises(UsageError, match=f"--opset {opset} cannot be had: torch writes 18 to"):
        Onnx(Wish(opset=opset))


def test_a_graph_that_is_there_keeps_its_opset(make: Maker, exported: Callable[[str], Path], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="opset 18 was asked for, and 20 came out"):
        make("onnx", f"{exported('tiny-vit')}/", tmp_path / "again", opset=18)


def test_an_example_of_one_row_fixes_the_batch(tmp_path: Path) -> None:
    """torch takes 1 for a constant although a dimension is named for it, and says nothing."""
    with pytest.raises(ClipkitError, match="the text tower came out with a fixed batch"):
        graphs.export_onnx(Small(), "text", TOKENS[:1], tmp_path / "text.onnx")


def test_a_graph_that_only_says_that_its_batch_is_free(tmp_path: Path) -> None:
    small = Small()
    with hushed(), torch.no_grad():
        torch.onnx.export(
            small,
            (TOKENS[:1],),
            str(tmp_path / "fixed.onnx"),
            input_names=["tokens"],
            output_names=["joint"],
            external_data=False,
            verbose=False,
        )
    model = onnx.load(str(tmp_path / "fixed.onnx"))
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    onnx.save(model, str(tmp_path / "fixed.onnx"))
    with pytest.raises(ClipkitError, match=r"text tower (is wrong|does not run) at a batch of 2"):
        graphs.verify(small, "text", TOKENS, tmp_path / "fixed.onnx")


def test_a_graph_with_other_numbers(source: Callable[[str], Source], tmp_path: Path) -> None:
    whole = source("tiny-vit")
    model = onnx.load(str(whole.graph("text")))
    largest = max(model.graph.initializer, key=lambda tensor: len(tensor.raw_data))
    weights = onnx.numpy_helper.to_array(largest) * 1.01
    largest.raw_data = weights.astype(np.float32).tobytes()
    onnx.save(model, str(tmp_path / "text.onnx"))
    with pytest.raises(ClipkitError, match="text tower is wrong at a batch of 1: joint is off by"):
        graphs.verify(whole.module("text"), "text", whole.example("text"), tmp_path / "text.onnx")


class Unexportable(nn.Module):
    """Does what depends on the values that it is given."""

    def forward(self, tokens: torch.Tensor) -> tuple[torch.Tensor]:
        return (tokens.float() if bool(tokens.sum() > 3) else -tokens.float(),)


def test_what_torch_cannot_export_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ClipkitError, match="torch cannot export the text tower: ") as caught:
        graphs.export_onnx(Unexportable().eval(), "text", torch.ones(2, 4, dtype=torch.int64), tmp_path / "no.onnx")
    assert "\n" not in caught.value.message


def test_towers_are_in_eval_mode(source: Callable[[str], Source]) -> None:
    """A wrapper has a flag of its own: torch exports dropout and batch statistics where it says training."""
    for tower in ("image", "text"):
        module = source("tiny-resnet").module(tower)  # type: ignore[arg-type]
        assert not any(part.training for part in module.modules())


@pytest.mark.parametrize("given", [True, False])
def test_the_fast_path_is_as_it_was(given: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def fail(*arguments: Any, **named: Any) -> None:
        seen.append(torch.backends.mha.get_fastpath_enabled())
        raise RuntimeError("no")

    monkeypatch.setattr(torch.onnx, "export", fail)
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(given)
    try:
        with pytest.raises(ClipkitError, match="torch cannot export the text tower: no"):
            graphs.export_onnx(Small(), "text", TOKENS, tmp_path / "no.onnx")
        assert seen == [False] and torch.backends.mha.get_fastpath_enabled() is given
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


def test_what_writes_to_the_descriptor_itself() -> None:
    """Converters in C++ know nothing of sys.stdout, and into a pipe C writes when its buffer is full, or at the end."""
    program = """
import ctypes, os
from clipkit.exporting.quiet import hushed
libc = ctypes.CDLL(None)
libc.puts(b"before")
try:
    with hushed():
        os.write(1, b"from below\\n")
        libc.puts(b"from C")
        print("from Python")
        os.system("echo from a child")
        1 / 0
except ZeroDivisionError:
    print("after", flush=True)
"""
    command = [sys.executable, "-P", "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("before\nafter\n", "")


def test_the_same_bytes_and_no_paths_of_this_machine_and_no_words(
    source: Callable[[str], Source], tmp_path: Path, capfd: Any
) -> None:
    """torch writes down for each operator where in which source file it came from, and prints what it is doing."""
    whole = source("tiny-vit")
    graphs.export_onnx(whole.module("image"), "image", whole.example("image"), tmp_path / "image.onnx")
    assert capfd.readouterr().out == ""
    content = (tmp_path / "image.onnx").read_bytes()
    assert content == whole.graph("image").read_bytes()
    assert b"site-packages" not in content and b".py" not in content


@pytest.mark.parametrize("tower", ["image", "text"])
def test_one_tower(
    make: Maker, source: Callable[[str], Source], tmp_path: Path, tower: str, in_process: InProcess
) -> None:
    folder = tmp_path / "model"
    make("onnx", source("tiny-vit"), folder, towers=(tower,))
    encoder = load(str(folder))
    if tower == "image":
        assert set(manifest(folder)["files"]) == {"image.onnx"}
        assert encoder.encode_images([encoder.preprocess(pictures(1)[0])])[0].shape == (1, 32)
    else:
        assert encoder.encode_texts(["a cat"]).shape == (1, 32)
    pictures(1)[0].save(tmp_path / "photo.png")
    refused = in_process("zeroshot", tmp_path / "photo.png", "--labels", "cats,dogs", "--model", f"{folder}/")
    asked = "texts" if tower == "image" else "pictures"
    assert refused.code == 2 and refused.stdout == ""
    assert refused.stderr.splitlines()[0].endswith(f"holds the {tower} tower alone: it has no features of {asked}")
    assert len(refused.stderr.splitlines()) == 2


def test_embedding_needs_pictures() -> None:
    with pytest.raises(UsageError, match="--tower text ships none"):
        Onnx(Wish(towers=("text",), embed_preprocessing=True))


def test_rows_that_depend_on_their_batch_are_found(tmp_path: Path) -> None:
    """Range of the whole batch: what dynamic quantisation does."""
    helper = onnx.helper
    pixels, joint = (
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["n", 3, 2, 2]) for name in ("pixels", "joint")
    )
    for name, nodes in {
        "free": [helper.make_node("Relu", ["pixels"], ["joint"])],
        "bound": [
            helper.make_node("ReduceMax", ["pixels"], ["most"], keepdims=0),
            helper.make_node("Div", ["pixels", "most"], ["joint"]),
        ],
    }.items():
        graph = helper.make_graph(nodes, name, [pixels], [joint])
        path = tmp_path / f"{name}.onnx"
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9), path)
        assert files.rows_stand_alone(path, files.noise("image", (2, 2), 0, 4)) is (name == "free")
