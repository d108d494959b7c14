"""open_clip's architectures and published weights, read from the installed package without importing it (or torch)."""

from __future__ import annotations
import __future__ as future

import ast
import copy
import importlib
import json
import os
import re
from functools import cache
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

from clipkit.errors import MissingPackage

INSTALL = "pip install open_clip_torch"
HUB_CONFIG = "open_clip_config.json"
TINY = Path(__file__).parent / "tiny"  # small enough to be trained on a laptop


@cache
def package(purpose: str = "what open_clip carries (its models, its named templates)") -> Path:
    """The folder of the installed open_clip. Raises MissingPackage."""
    spec = find_spec("open_clip")
    if spec is None or not spec.submodule_search_locations:
        raise MissingPackage("open_clip_torch", purpose, INSTALL)
    return Path(spec.submodule_search_locations[0])


def installed() -> bool:
    """Whether open_clip is there at all (the slim install has none)."""
    return find_spec("open_clip") is not None


def plain_module(name: str) -> ModuleType:
    """A module of open_clip that imports nothing (`constants`, `zero_shot_metadata`), run apart from its package."""
    spec = spec_from_file_location(f"_clipkit_open_clip_{name}", package() / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@cache
def pretrained() -> dict[str, dict[str, dict[str, Any]]]:
    """Architecture -> tag -> {url, hf_hub, mean, std, interpolation, resize_mode, quick_gelu?, ...}.

    pretrained.py is plain data and a few helpers below imports that load torch: it is run without those imports.
    A test compares it with open_clip's own list; a release that this cannot read is imported instead (seconds).
    """
    source = (package() / "pretrained.py").read_text(encoding="utf-8")
    tree = ast.parse(source)
    tree.body = [node for node in tree.body if not isinstance(node, ast.Import | ast.ImportFrom | ast.Try)]
    code = compile(tree, "open_clip/pretrained.py", "exec", flags=future.annotations.compiler_flag, dont_inherit=True)
    namespace: dict[str, Any] = {"copy": copy, **vars(plain_module("constants"))}
    try:
        exec(code, namespace)  # noqa: S102 (the installed library's own code, as an import would run it)
        table = namespace["_PRETRAINED"]
    except (NameError, KeyError):
        table = importlib.import_module("open_clip.pretrained")._PRETRAINED
    return {arch: dict(tags) for arch, tags in table.items()}


@cache
def configs() -> dict[str, Path]:
    """Architecture -> its JSON file, in natural order (B-16 before B-32); clipkit's own tiny ones are among them."""
    files = [*(package() / "model_configs").glob("*.json"), *TINY.glob("*.json")]
    return {path.stem: path for path in sorted(files, key=lambda path: _natural(path.stem))}


def tiny() -> list[str]:
    """The names of clipkit's own small architectures."""
    return [path.stem for path in TINY.glob("*.json")]


def architectures() -> list[str]:
    """The names of open_clip's architectures; [] without open_clip."""
    return list(configs()) if installed() else []


def tags(arch: str) -> list[str]:
    """The published weights of an architecture; [] if there are none."""
    return list(pretrained().get(arch, {}))


def loadable_tags(arch: str) -> list[str]:
    """Those that were trained with the architecture's own activation; its twin has the others."""
    quick_gelu = bool(config(arch).get("quick_gelu"))
    alone = twin(arch) is None
    return [
        tag for tag, entry in pretrained().get(arch, {}).items() if alone or bool(entry.get("quick_gelu")) == quick_gelu
    ]


def config(arch: str) -> dict[str, Any]:
    """An architecture's description: embed_dim, vision_cfg, text_cfg, quick_gelu?, ..."""
    loaded: dict[str, Any] = json.loads(configs()[arch].read_text(encoding="utf-8"))
    return loaded


def twin(arch: str) -> str | None:
    """The same architecture with the other activation (`ViT-B-32` and `ViT-B-32-quickgelu`), where there is one."""
    other = arch.removesuffix("-quickgelu") if arch.endswith("-quickgelu") else f"{arch}-quickgelu"
    return other if other in configs() else None


def usual_preprocess(arch: str) -> dict[str, Any]:
    """The preprocessing that all published weights of an architecture share; {}, open_clip's default, if they differ.

    open_clip takes OpenAI's for any local checkpoint, which is wrong for SigLIP architectures.
    """
    keys = ("mean", "std", "interpolation", "resize_mode")
    found = [{key: entry[key] for key in keys} for entry in pretrained().get(arch, {}).values()]
    return found[0] if found and all(other == found[0] for other in found) else {}


def weights_file(entry: dict[str, Any]) -> tuple[str, tuple[str, ...]]:
    """Where published weights come from: a hub repository and the file names it may have, or a URL and ()."""
    if not entry.get("hf_hub"):
        return entry["url"], ()
    repository, _, name = entry["hf_hub"].rpartition("/")
    return repository, hub_names(name or None)


def hub_names(name: str | None = None) -> tuple[str, ...]:
    """The file names that open_clip tries in a hub repository, in order."""
    if name is None:
        return ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
    return (re.sub(r"\.(bin|pth)$", ".safetensors", name), name)


def hub_folder() -> Path:
    """Where the Hugging Face hub keeps what it downloaded (HF_HUB_CACHE, HF_HOME, XDG_CACHE_HOME)."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "huggingface"
    home = Path(os.environ.get("HF_HOME") or base).expanduser()
    return Path(os.environ.get("HF_HUB_CACHE") or home / "hub").expanduser()


def url_folder() -> Path:
    """Where open_clip keeps what it downloads by URL."""
    return Path("~/.cache/clip").expanduser()


def cached(entry: dict[str, Any]) -> Path | None:
    """The file of published weights on this machine, found without any network; None if it isn't here."""
    source, names = weights_file(entry)
    if not names:
        path = url_folder() / source.rpartition("/")[2]
        return path if path.is_file() else None
    return cached_in_hub(source, names)


def cached_in_hub(repository: str, names: tuple[str, ...]) -> Path | None:
    """The first of these files in the hub's cache: of the revision `main` if it is known, else of any."""
    folder = hub_folder() / f"models--{repository.replace('/', '--')}"
    main = folder / "refs" / "main"
    snapshots = (
        [folder / "snapshots" / main.read_text().strip()] if main.is_file() else sorted(folder.glob("snapshots/*"))
    )
    return next((path for snapshot in snapshots for name in names if (path := snapshot / name).is_file()), None)


def _natural(name: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name.casefold())]
