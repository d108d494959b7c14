"""The networks of an exported folder as torch.export's programs: image.pt2 and text.pt2, opened when first asked for.

`torch.export.load` believes what it reads (torch 2.14): it unpickles payloads that say they are pickles, looks up any
name under `torch.`, evaluates expressions of symbols and compiles names and guards as Python. So an archive is read
here first, and one that holds more than operators of aten over plain tensors is refused.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from clipkit.errors import ClipkitError, first_line
from clipkit.models.exported import towers_of
from clipkit.models.sessions import Once

_FILES = re.compile(
    r"archive_format|archive_version|byteorder|\.data/(version|serialization_id)|models/model\.json"
    r"|data/sample_inputs/model\.pt|data/(weights|constants)/(model_(weights|constants)_config\.json|(weight|tensor)_\d+)"
)
_SAMPLES = "data/sample_inputs/model.pt"  # the one payload that is a pickle whatever it holds: it has to be empty
_CONFIGS = {"weight": "data/weights/model_weights_config.json", "tensor": "data/constants/model_constants_config.json"}
_WORD = re.compile(r"[\w.+-]*", re.ASCII)
_NAME = re.compile(r"([A-Za-z_]\w*)?", re.ASCII)  # they become names in Python that torch writes and compiles
_NAMES = ("name", "as_name", "forward_arg_names")
_TREE = re.compile(r'(null|[\d\s\[\]{},:]|"(type|context|children_spec|null|\[\]|builtins\.(tuple|list|dict))")*')
_OPERATOR = re.compile(r"torch\.ops\.aten\.(?!from_file)(\w+)\.(\w+)", re.ASCII)
_ARITHMETIC = re.compile(r"_operator\.(add|eq|floordiv|ge|getitem|gt|le|lt|mod|mul|ne|neg|sub)")
_SIZE = re.compile(
    r"Add|Eq|Ge|Gt|Integer|Le|Lt|Max|Min|Mul|Ne|Pow|Rational|Symbol|CeilDiv|CleanDiv|(Floor|Python)?(Div|Mod)"
)


class TorchTowers:
    """`pixels` to `joint` and perhaps `backbone`; `tokens` to `joint`. Raises ClipkitError where a file is missing."""

    def __init__(self, folder: Path, manifest: dict[str, Any], threads: int) -> None:
        for tower in towers_of(manifest):
            if f"{tower}.pt2" not in manifest["files"]:
                raise ClipkitError(f"{folder} has no {tower} tower ({tower}.pt2)", "export the model again")
        torch.set_num_threads(threads)
        self._outputs = ["joint", "backbone"] if manifest.get("backbone_dim") else ["joint"]
        self._image = Once(lambda: load(folder / "image.pt2").module())
        self._text = Once(lambda: load(folder / "text.pt2").module())
        self.space = f"torch-{torch.__version__}"

    def image(self, pixels: np.ndarray, outputs: Sequence[str]) -> list[np.ndarray]:
        """See `clipkit.models.exported.Towers`."""
        found = dict(zip(self._outputs, _run(self._image(), pixels), strict=True))
        return [found[name] for name in outputs]

    def text(self, tokens: np.ndarray) -> np.ndarray:
        """See `clipkit.models.exported.Towers`."""
        return _run(self._text(), tokens)[0]


def _run(program: Any, rows: np.ndarray) -> list[np.ndarray]:
    own = torch.from_numpy(rows).clone()  # in torch's memory: how rows are aligned is seen in their last bits
    with torch.inference_mode():
        return [output.numpy() for output in program(own)]


def load(path: Path) -> torch.export.ExportedProgram:
    """A program from an archive that was looked at first. Raises ClipkitError for one that is not only a network."""
    try:
        from torch.export.pt2_archive._package import PT2ArchiveReader

        with PT2ArchiveReader(str(path)) as archive:
            wrong = next(_faults(archive), None)
    except Exception as error:  # no archive, or JSON of another form, or a torch that has other archives
        raise ClipkitError(f"cannot read {path} with torch {torch.__version__}: {first_line(error)[:300]}") from None
    if wrong:
        raise ClipkitError(
            f"{path} holds more than a network: {wrong}", "it was not written by this clipkit; nothing of it was run"
        )
    try:
        return torch.export.load(str(path))
    except Exception as error:  # another version of the schema, say
        raise ClipkitError(f"torch {torch.__version__} cannot load {path}: {first_line(error)[:300]}") from None


def _faults(archive: Any) -> Iterator[str]:
    """What in an archive might be more than tensors and operators on them."""
    names = archive.get_file_names()
    for name in names:
        if not _FILES.fullmatch(name):
            yield f"the file {name!r}"
    if archive.read_bytes(_SAMPLES):
        yield f"a pickle, {_SAMPLES}"
    for prefix, name in _CONFIGS.items():
        for payload in json.loads(archive.read_bytes(name))["config"].values():
            if payload["use_pickle"] is not False or not re.fullmatch(rf"{prefix}_\d+", payload["path_name"]):
                yield f"a pickle, {payload['path_name']!r}"
    program = json.loads(archive.read_bytes("models/model.json"))
    if program["guards_code"]:
        yield "code that guards its inputs"
    yield from _strings(program, "")


def _strings(value: Any, key: str) -> Iterator[str]:
    """What in a program's JSON is neither number, word, expression of sizes nor known operator."""
    if isinstance(value, dict):
        for name, inner in value.items():
            if not _WORD.fullmatch(name) or name in ("as_operator", "as_graph", "as_custom_obj"):
                yield f"an entry {name[:80]!r}"
            if name == "metadata" and inner:
                yield "metadata"
            yield from _strings(inner, name)
    elif isinstance(value, list):
        for inner in value:
            yield from _strings(inner, key)
    elif isinstance(value, str) and not _fits(value, key):
        yield f"{value[:80]!r} as {key}"


def _fits(value: str, key: str) -> bool:
    if key == "target":
        return _ARITHMETIC.fullmatch(value) is not None or _is_operator(value)
    if key == "expr_str":
        return _is_expression(value)
    pattern = _TREE if key.endswith("_spec") else _NAME if key in _NAMES else _WORD
    return pattern.fullmatch(value) is not None


def _is_operator(name: str) -> bool:
    """Whether it names an operator of aten; not the one that opens files."""
    parts = _OPERATOR.fullmatch(name)
    found = getattr(getattr(torch.ops.aten, parts[1], None), parts[2], None) if parts else None
    return isinstance(found, torch._ops.OpOverload)


def _is_expression(text: str) -> bool:
    """Whether a size is written in numbers, symbols and the functions of them that torch writes."""
    try:
        tree = ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return _is_size(tree)


def _is_size(node: ast.expr) -> bool:
    if isinstance(node, ast.Constant):
        return isinstance(node.value, int) or (isinstance(node.value, str) and node.value.isidentifier())
    if isinstance(node, ast.UnaryOp):
        return isinstance(node.op, ast.USub) and _is_size(node.operand)
    return (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and _SIZE.fullmatch(node.func.id) is not None
        and all(_is_size(argument) for argument in node.args)
        and all(isinstance(keyword.value, ast.Constant) for keyword in node.keywords)
    )
