"""Checkpoint files of open_clip models: read without running what is in them, and checked against the architecture.

Tensors have the same names and shapes whether a model was trained with GELU or with QuickGELU, its sigmoid form
x * sigmoid(1.702 x) (Hendrycks and Gimpel, 2016; OpenAI's and some later models). What tells:
1. an open_clip_config.json beside the file (the hub's layout): `model_cfg.quick_gelu`;
2. a params.txt of open_clip's training beside it, or one folder up: `model` and `force_quick_gelu`;
3. the release that its name says it is, if its sha256 starts as that name says it must;
4. OpenAI's own entries in its state dict (input_resolution, context_length, vocab_size).
"""

from __future__ import annotations

import json
import pickle
import zipfile
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clipkit.errors import ClipkitError, first_line
from clipkit.models import listing
from clipkit.models.identity import file_sha256

if TYPE_CHECKING:
    import torch
    from torch import nn

OPENAI_ENTRIES = ("input_resolution", "context_length", "vocab_size")
WRAPPED = "module."  # before every name, where DistributedDataParallel had the model
SAFETENSORS = "save its state dict with safetensors.torch.save_file"


@dataclass(frozen=True, slots=True)
class Trained:
    """What a file is known to have been trained with, and how that is known (ends a sentence)."""

    quick_gelu: bool
    because: str


Shapes = dict[str, tuple[int, ...]]


def read_shapes(path: Path) -> Shapes:
    """The tensors of a checkpoint by name, their data left unread; open_clip's and DDP's wrappings taken off.

    Nothing is unpickled but tensors and plain containers. Raises ClipkitError for TorchScript (which holds code),
    pickled objects, a file cut short, and what holds no tensors.
    """
    shapes = _safetensors(path) if path.suffix == ".safetensors" else _shapes(read_pickled(path))
    if not shapes:
        raise ClipkitError(f"{path} holds no weights", "expected a state dict: tensors by name")
    if all(name.startswith(WRAPPED) for name in shapes):
        return {name.removeprefix(WRAPPED): shape for name, shape in shapes.items()}
    return shapes


def _safetensors(path: Path) -> Shapes:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118 (no mapping)
    except (SafetensorError, OSError) as error:
        raise ClipkitError(f"cannot read {path}: {error}") from None


def _shapes(tensors: Mapping[str, torch.Tensor]) -> Shapes:
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def read_pickled(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a file of torch.save by name, mapped where the file can be; open_clip's wrapping taken off.

    Raises as `read_shapes` does, but for a file without tensors: that gives {}.
    """
    import torch

    loaded = _loaded(path)
    if isinstance(loaded, dict) and isinstance(loaded.get("state_dict"), dict):
        loaded = loaded["state_dict"]
    if not isinstance(loaded, dict):
        return {}
    return {str(name): value for name, value in loaded.items() if isinstance(value, torch.Tensor)}


def _loaded(path: Path) -> Any:
    import torch

    if _is_torchscript(path):
        raise ClipkitError(
            f"{path} is a TorchScript archive, as OpenAI's own releases are: it holds code, which clipkit does not run",
            f"give a published name such as ViT-B-32-quickgelu:openai, or {SAFETENSORS}",
        )
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError:
        raise ClipkitError(
            f"{path} holds pickled objects besides weights, and those can run code: it is not loaded", SAFETENSORS
        ) from None
    except (RuntimeError, OSError, EOFError, ValueError) as error:
        raise ClipkitError(f"cannot read {path}: {str(error).splitlines()[0]}", "is it complete?") from None


def _is_torchscript(path: Path) -> bool:
    """torch.jit.save writes a zip with a folder `code` and `constants.pkl`."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") or "/code/" in name for name in archive.namelist())


def trained_with(path: Path, names: Iterable[str]) -> Trained | None:
    """Whether a checkpoint was trained with QuickGELU, and what says so; None if nothing does. names: its tensors'."""
    if (beside := sidecar(path.parent)) is not None:
        return Trained(bool(beside["model_cfg"].get("quick_gelu")), f"{listing.HUB_CONFIG} beside it says so")
    return _training_params(path) or _release(path) or _openai(names)


def sidecar(folder: Path) -> dict[str, Any] | None:
    """The open_clip_config.json of a folder: {model_cfg, preprocess_cfg}; None if there is none."""
    path = folder / listing.HUB_CONFIG
    if not path.is_file():
        return None
    try:
        loaded = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ClipkitError(f"{path} is not JSON: {error}") from None
    if not isinstance(loaded, dict) or not isinstance(loaded.get("model_cfg"), dict):
        raise ClipkitError(f"{path} has no model_cfg")
    return loaded


def _training_params(path: Path) -> Trained | None:
    for folder in (path.parent, path.parent.parent):
        file = folder / "params.txt"
        if not file.is_file():
            continue
        pairs = (line.partition(": ") for line in file.read_text(encoding="utf-8", errors="replace").splitlines())
        params = {name.strip(): value.strip() for name, _, value in pairs}
        arch = params.get("model", "")
        if arch in listing.configs():
            forced = params.get("force_quick_gelu") == "True"
            return Trained(
                forced or bool(listing.config(arch).get("quick_gelu")), f"the training's {file.name} says {arch}"
            )
    return None


def _release(path: Path) -> Trained | None:
    for arch, entries in listing.pretrained().items():
        for tag, entry in entries.items():
            prefix = path.stem.rpartition("-")[2]
            if len(prefix) >= 8 and entry["url"].endswith(f"/{path.name}") and file_sha256(path).startswith(prefix):
                return Trained(
                    bool(entry.get("quick_gelu")), f"it is the release {arch.removesuffix('-quickgelu')}:{tag}"
                )
    return None


def _openai(names: Iterable[str]) -> Trained | None:
    if set(OPENAI_ENTRIES) <= set(names):
        return Trained(True, "it has the entries of OpenAI's own models")
    return None


def check_activation(shown: str, arch: str, quick_gelu: bool, trained: Trained) -> None:
    """Raise ClipkitError if weights would run with an activation that they weren't trained with.

    Only where the architecture exists in both forms: for others (roberta-ViT-B-32) open_clip's config is what is meant.
    """
    other = listing.twin(arch)
    if other is None or quick_gelu == trained.quick_gelu:
        return
    was, has = ("QuickGELU", "GELU") if trained.quick_gelu else ("GELU", "QuickGELU")
    weights = shown.partition(":")[2]
    raise ClipkitError(
        f"{shown} would be wrong: the weights were trained with {was} ({trained.because}), {arch} has {has}",
        f"give {other}:{weights}",
    )


def fill(model: nn.Module, path: Path, shapes: Shapes, shown: str) -> list[str]:
    """Load a checkpoint's weights into an open_clip model, every tensor or none; returns notices.

    open_clip's own conversions run (custom text towers, MobileCLIP, position embeddings of another size). Raises
    ClipkitError for a missing or superfluous logit bias, tensors missing, left over or of another shape.
    """
    from open_clip import load_checkpoint

    _check_bias(model, shapes, shown)
    try:
        missing, unexpected = load_checkpoint(model, str(path), strict=False)
    except Exception as error:  # of load_state_dict, or whatever open_clip's conversions stumble over
        wrong = [line.strip() for line in str(error).splitlines() if "size mismatch" in line]
        more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
        detail = wrong[0].rstrip(".") + more if wrong else misfits(_shapes(model.state_dict()), shapes)
        raise ClipkitError(
            f"{path.name} does not fit the architecture: {detail or first_line(error)}", "is it for another one?"
        ) from None
    unexpected = [name for name in unexpected if name not in OPENAI_ENTRIES]
    if missing or unexpected:
        said = [f"{what} {some(names)}" for what, names in (("lacks", missing), ("has unknown", unexpected)) if names]
        raise ClipkitError(
            f"{path.name} does not fit the architecture: it {' and '.join(said)}", "is it for another one?"
        )
    return _resized(model, shapes)


def _check_bias(model: nn.Module, names: Container[str], shown: str) -> None:
    arch = shown.partition(":")[0]
    biased = getattr(model, "logit_bias", None) is not None
    if biased and "logit_bias" not in names:
        raise ClipkitError(
            f"{shown}: {arch} is trained with the sigmoid loss (SigLIP), but the weights have no logit_bias",
            "its probabilities would be wrong: use the whole checkpoint, or the architecture that the weights are of",
        )
    if not biased and "logit_bias" in names:
        raise ClipkitError(
            f"{shown}: the weights have a logit_bias (they were trained with the sigmoid loss), which {arch} has not",
            "use their own architecture: `clipkit models SigLIP`",
        )


def _resized(model: nn.Module, shapes: Shapes) -> list[str]:
    held = model.state_dict()
    return [
        f"{name} was resized from {shapes[name]} to {tuple(held[name].shape)}: "
        "the weights are of another image or text size"
        for name in ("visual.positional_embedding", "positional_embedding", "text.positional_embedding")
        if name in shapes and name in held and shapes[name] != tuple(held[name].shape)
    ]


def misfits(wanted: Shapes, found: Shapes) -> str:
    """What tensors an architecture wants and a file has not, has besides, or has of another shape; "" for none."""
    wrong = {
        "lacks": [name for name in wanted if name not in found],
        "has unknown": [name for name in found if name not in wanted],
        "has other shapes than the architecture:": [
            f"{name} {list(found[name])} for {list(shape)}"
            for name, shape in wanted.items()
            if found.get(name, shape) != shape
        ],
    }
    said = [f"{what} {some(names)}" for what, names in wrong.items() if names]
    return f"it {' and '.join(said)}" if said else ""


def some(names: Sequence[str]) -> str:
    """The first names of many, and how many more there are."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
