"""Who may import whom (docs/architecture.md), and what may be loaded when."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
MODULES = sorted((ROOT / "clipkit").rglob("*.py"))

# A part of clipkit/, and the parts it may import when it runs, besides itself. A new part needs a line here.
MAY_IMPORT = {
    "errors": set(),
    "terminal": set(),
    "references": {"terminal"},
    "tars": set(),
    "config": {"errors"},
    "registry": {"errors"},
    "stream": {"errors", "references", "tars", "terminal"},
    "images": {"errors", "references", "tars", "models.base"},  # how a model wants its pixels
    "models": {"errors", "images"},
    "tries": {"errors"},
    "fetching": {"errors", "images", "terminal", "tries"},
    "text": {"errors", "models"},
    "features": {"errors", "references", "stream", "images", "models", "text"},
    "chat": {"errors", "terminal", "tries"},
    "methods": {"chat", "errors", "prompts", "registry", "stream", "features", "images", "models", "text"},
    "evaluation": {"errors", "stream", "terminal"},
    "prompts": {"errors", "stream"},
    "training": {
        "errors",
        "evaluation",
        "features",
        "images",
        "methods",
        "models",
        "references",
        "stream",
        "tars",
        "text",
    },
    "recipes": {"errors", "stream"},
    "packing": {"errors", "references", "stream", "images"},
    "exporting": {"errors", "features", "images", "methods", "models", "recipes", "stream", "terminal", "text"},
    "soups": {"errors", "evaluation", "images", "models", "stream", "terminal", "text", "training"},
    "stages": {
        "chat",
        "errors",
        "evaluation",
        "stream",
        "references",
        "fetching",
        "methods",
        "features",
        "images",
        "models",
        "packing",
        "prompts",
        "soups",
        "text",
        "training",
    },
    "diagnosis": {"config", "errors", "models", "stream"},
    "verbs": {"errors"},
    "options": {"config", "errors"},
    "training_options": {"errors", "options"},
    "export_options": {"methods", "options"},
    "pipeline": {"config", "errors", "features", "stream", "terminal"},
    "matrix": {"config", "errors", "evaluation", "methods", "options", "pipeline", "stages", "stream", "terminal"},
    "tasks": {"errors", "matrix", "methods", "options", "pipeline", "recipes", "stages", "stream", "terminal"},
    "api": {"errors", "models", "stream"},
    "loader": {"errors", "options", "verbs"},
    "completion": {"loader", "verbs"},
    "cli": {"completion", "errors", "loader", "terminal", "verbs"},
    "__init__": {"api"},
    "__main__": {"cli"},
}
KNOW_TYPER = {"cli", "completion", "export_options", "loader", "options", "training_options"}
FIRST_PARTY = "clipkit"


def part(path: Path) -> str:
    return path.relative_to(ROOT / "clipkit").parts[0].removesuffix(".py")


def _executed(node: ast.AST) -> Iterator[ast.AST]:
    """All nodes but those that only a type checker sees."""
    if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
        return
    yield node
    for child in ast.iter_child_nodes(node):
        yield from _executed(child)


def imports(path: Path) -> Iterator[tuple[str, int]]:
    """Every module that a file imports, anywhere in it, and the line; `from a import b` gives a.b."""
    for node in _executed(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: imports are absolute"
            yield from ((f"{node.module}.{alias.name}", node.lineno) for alias in node.names)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_who_imports_whom(path: Path) -> None:
    here = part(path)
    for name, line in imports(path):
        package, _, rest = name.partition(".")
        there, _, inner = rest.partition(".")
        allowed = {here, *MAY_IMPORT[here]}
        if package == FIRST_PARTY and there != "__version__":
            assert there in allowed or f"{there}.{inner.partition('.')[0]}" in allowed, (
                f"{path}:{line}: {here} may not import {there}"
            )
        if package == "typer":
            assert here in KNOW_TYPER, f"{path}:{line}: only {sorted(KNOW_TYPER)} know Typer"


def test_only_the_loader_reaches_commands() -> None:
    """A verb is found and imported by its name as data; no other module depends on one."""
    for path in [*MODULES, *(ROOT / "commands").glob("*.py")]:
        for name, line in imports(path):
            assert not name.startswith("clipkit.commands"), f"{path}:{line}"
        if part_of_core(path) and part(path) != "verbs":
            assert "clipkit.commands" not in path.read_text(encoding="utf-8"), path


def part_of_core(path: Path) -> bool:
    return path.is_relative_to(ROOT / "clipkit")


def loaded_by(*modules: str) -> set[str]:
    program = "import sys; [__import__(name) for name in sys.argv[1:]]; print(*sys.modules, sep='\\n')"
    command = [sys.executable, "-P", "-c", program, *modules]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return {name.partition(".")[0] for name in done.stdout.split()}


def test_clipkit_itself_imports_no_third_party() -> None:
    third_party = loaded_by("clipkit", "clipkit.cli") - set(sys.stdlib_module_names) - loaded_by() - {FIRST_PARTY}
    assert not third_party


def test_the_stream_never_loads_arrays_or_models() -> None:
    names = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for path in MODULES
        if part(path) == "stream"
    ]
    assert not {"torch", "numpy", "PIL", "rich", "pyarrow", "tqdm"} & loaded_by(*names)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_stay_small(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 450


def test_an_adapter_in_use_waits_for_no_library_that_only_its_fit_needs() -> None:
    from clipkit.methods import ADAPTERS

    loaded = loaded_by(*(entry.target.partition(":")[0] for entry in ADAPTERS if not entry.distribution))
    assert not loaded & {"torch", "open_clip", "scipy"}
