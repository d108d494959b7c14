"""What a user may give as `--model`, taken apart and checked before anything heavy is imported."""

from __future__ import annotations

import difflib
import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from clipkit.errors import ClipkitError, UsageError
from clipkit.models import listing
from clipkit.models.checkpoint import Trained, check_activation

LITE = "lite"
MANIFEST = "clipkit.json"  # in a folder that `clipkit export` wrote
HUB_CONFIG = listing.HUB_CONFIG  # in a folder as open_clip writes it and the hub holds it
RUN = "run.json"  # in a folder that `clipkit train` wrote; the model lies in its folder `model`
ADAPTER = "adapter.json"  # in a folder that `clipkit train-adapter` wrote
HUB_PREFIX = "hf-hub:"
SUFFIXES = (".safetensors", ".pt", ".pth", ".bin")
GRAMMAR = "lite, ARCH:TAG, ARCH:path/to/checkpoint, hf-hub:ORG/NAME or a folder; see `clipkit models`"

Kind = Literal["lite", "exported", "tag", "checkpoint", "hub", "folder"]


@dataclass(frozen=True, slots=True)
class ModelName:
    """A model asked for. arch: for `tag` and `checkpoint`. tag: its canonical spelling. path: file or folder, of a run
    the model's.

    repository: `ORG/NAME`, for `hub`.
    """

    kind: Kind
    given: str
    arch: str = ""
    tag: str = ""
    path: Path = Path()
    repository: str = ""

    @property
    def shown(self) -> str:
        """The name for identities: as given, but without the folders of a path; a model of a run by the run's name."""
        if self.kind == "checkpoint":
            return f"{self.arch}:{self.path.name}"
        if self.kind == "tag":
            return f"{self.arch}:{self.tag}"
        return _called(self.path.resolve()) if self.kind in ("exported", "folder") else self.given


def parse(name: str) -> ModelName:
    """Take a model's name apart. A path contains a `/`; `lite` and `hf-hub:` are reserved.

    Raises UsageError for what is no model: with close matches, an architecture's tags, or what a folder lacks;
    ClipkitError for published weights that were trained with another activation than the architecture's.
    """
    if name == LITE:
        return ModelName("lite", name)
    if name.startswith(HUB_PREFIX):
        repository = name.removeprefix(HUB_PREFIX)
        if not re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", repository):
            raise UsageError(f"{name!r} names no repository", "expected hf-hub:ORG/NAME")
        return ModelName("hub", name, repository=repository)
    arch, colon, rest = name.partition(":")
    if colon and "/" not in arch:
        return _checkpoint(name, arch, rest) if "/" in rest else _tag(name, arch, rest)
    if "/" in name:
        return _folder(name)
    if not name:
        raise UsageError("no model is named", GRAMMAR)
    raise _bare(name)


def again(name: str) -> str:
    """How a model is given once more, of which only the name is known that it is shown by."""
    try:
        parse(name)
    except UsageError:
        arch, colon, file = name.rpartition(":")
        return f"{arch}{colon}PATH/TO/{file}"
    except ClipkitError:
        pass  # it has a name, and lacks a package
    return name


def _called(folder: Path) -> str:
    if folder.name == "model":
        return folder.parent.name or folder.name
    run = folder.parent.parent
    is_checkpoint = folder.parent.name == "checkpoints" and (run / RUN).is_file()
    return f"{run.name}/{folder.name}" if is_checkpoint else folder.name


def _checkpoint(name: str, arch: str, rest: str) -> ModelName:
    _known_arch(arch)
    path = Path(rest).expanduser()
    if not path.exists():
        raise UsageError(f"no checkpoint {rest}")
    if not path.is_file():
        raise UsageError(
            f"{rest} is not a file", f"a folder with {MANIFEST} or {HUB_CONFIG} is named without the ARCH:"
        )
    if path.suffix not in SUFFIXES:
        raise UsageError(f"{rest} is not a checkpoint: expected {', '.join(SUFFIXES)}")
    return ModelName("checkpoint", name, arch=arch, path=path)


def _tag(name: str, arch: str, tag: str) -> ModelName:
    _known_arch(arch)
    tags = listing.tags(arch)
    canonical = tag.lower().replace("-", "_")
    if canonical not in tags:
        hint = _close(canonical, tags, f"{arch}:") or (
            f"its tags: {', '.join(tags)}" if tags else f"give {arch}:path/to/file"
        )
        raise UsageError(f"{arch} has no tag {tag!r}", hint)
    trained = Trained(bool(listing.pretrained()[arch][canonical].get("quick_gelu")), "open_clip's list says so")
    check_activation(f"{arch}:{canonical}", arch, bool(listing.config(arch).get("quick_gelu")), trained)
    return ModelName("tag", name, arch=arch, tag=canonical)


def _folder(name: str) -> ModelName:
    path = Path(name).expanduser()
    if not path.is_dir():
        guess = _close(name.replace("/", "-"), listing.architectures())
        if path.is_file():
            raise UsageError(
                f"{name} is a file: a checkpoint needs its architecture", f"give ARCH:{name}, such as ViT-B-32:{name}"
            )
        raise UsageError(f"no model folder {name}", guess or GRAMMAR)
    if (path / MANIFEST).is_file():
        return ModelName("exported", name, path=path)
    if (path / HUB_CONFIG).is_file():
        return ModelName("folder", name, path=path)
    if (path / RUN).is_file():
        return _run(name, path)
    raise _no_model(name, path)


def _run(name: str, path: Path) -> ModelName:
    if (path / "model" / HUB_CONFIG).is_file():
        return ModelName("folder", name, path=path / "model")
    steps = sorted(step.name for step in path.glob("checkpoints/step-*"))
    last = os.path.join(name, "checkpoints", steps[-1], "") if steps else ""
    hint = f"its last checkpoint is a model: {last}" if last else "finish it: clipkit train --resume"
    raise UsageError(f"{name} is a run that has not ended: there is no model in it", hint)


def _no_model(name: str, path: Path) -> UsageError:
    """What a folder is that holds no model."""
    if (path / ADAPTER).is_file():
        hint = f"one that changes weights becomes a model: clipkit fold-adapter {name} -o DIR/"
        return UsageError(f"{name} is an adapter, not a model", hint)
    if (path / "config.json").is_file():
        return UsageError(
            f"{name} is a model as transformers stores it, which clipkit doesn't read",
            "name the model that it was made from; `clipkit export --to safetensors` makes a folder that --model takes",
        )
    return UsageError(f"{name} holds no model: neither {MANIFEST} nor {HUB_CONFIG} is in it", GRAMMAR)


def _bare(name: str) -> UsageError:
    if name in listing.architectures():
        tags = listing.loadable_tags(name)
        if not tags:
            return UsageError(f"{name} is an architecture without published weights", f"give {name}:path/to/checkpoint")
        return UsageError(
            f"{name} is an architecture: which weights?", "one of " + ", ".join(f"{name}:{tag}" for tag in tags)
        )
    if os.path.isdir(name):
        return UsageError(f"no model {name!r}", f"for the folder of that name give ./{name}")
    return UsageError(f"no model {name!r}", _close(name, [LITE, *listing.architectures()]) or GRAMMAR)


def _known_arch(arch: str) -> None:
    listing.package(f"the model {arch}")
    known = listing.architectures()
    if arch in known or _registered(arch):
        return
    hint = _close(arch, known) or "`clipkit models` lists the architectures and their tags"
    raise UsageError(f"no architecture {arch!r}", hint)


def _registered(arch: str) -> bool:
    """An architecture that this process added to open_clip (`add_model_config`)."""
    library = sys.modules.get("open_clip")
    return library is not None and arch in library.list_models()


def _close(name: str, known: list[str], prefix: str = "") -> str:
    folded = {candidate.casefold(): candidate for candidate in known}
    longer = [candidate for candidate in folded if name and candidate.startswith(name.casefold())]
    close = list(dict.fromkeys(longer + difflib.get_close_matches(name.casefold(), folded, n=3)))[:3]
    return f"Did you mean {', '.join(prefix + folded[match] for match in close)}? See `clipkit models`" if close else ""
