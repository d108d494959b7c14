"""What is known of models without loading their weights: for `clipkit models`. Imports neither torch nor open_clip."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from clipkit.models import listing
from clipkit.models.checkpoint import sidecar
from clipkit.models.names import LITE, ModelName, parse


def available(wanted: str | None = None) -> Iterator[dict[str, Any]]:
    """Models by name: id, backend, cached (on this machine), source. `wanted`: a glob, or part of a name, in any case.

    clipkit's own small architectures are among them, which have no weights: `clipkit train` gives them some.

    A folder (with a `/`) stands for itself. Left out are pairs of open_clip's that `load` refuses because the weights
    were trained with another activation: the same weights are listed with the architecture that has it.
    """
    if wanted is not None and "/" in wanted:
        name = parse(wanted)
        backend = _exported(name)["backend"] if name.kind == "exported" else "open_clip"
        yield {"id": name.given, "backend": backend, "cached": True, "source": str(name.path)}
        return
    rows = [{"id": LITE, "backend": "lite", "cached": True, "source": "the package"}, *_untrained(), *_published()]
    yield from (row for row in rows if wanted is None or _matches(row["id"], wanted))


def describe(name: str) -> dict[str, Any]:
    """A model, or a bare architecture, in detail. Raises ClipkitError (UsageError) where `load` would."""
    if name in listing.architectures():
        entries = listing.pretrained()
        tags = {tag: listing.cached(entries[name][tag]) is not None for tag in listing.loadable_tags(name)}
        return {
            "id": name,
            "backend": "open_clip",
            **_architecture(listing.config(name), listing.usual_preprocess(name)),
            "tags": tags,
        }
    parsed = parse(name)
    about = {"id": parsed.shown, "backend": "open_clip"}
    if parsed.kind == "lite":
        from clipkit.models import lite

        return about | {"backend": "lite"} | _encoder(lite.load()) | {"cached": True, "source": "the package"}
    if parsed.kind == "exported":
        return about | _exported(parsed) | {"cached": True, "source": str(parsed.path)}
    return about | _open_clip(parsed)


def _untrained() -> Iterator[dict[str, Any]]:
    for arch in listing.architectures():
        if arch in listing.tiny():
            yield {"id": arch, "backend": "open_clip", "cached": False, "source": "for training; no weights"}


def _published() -> Iterator[dict[str, Any]]:
    for arch in listing.architectures():
        for tag in listing.loadable_tags(arch):
            entry = listing.pretrained()[arch][tag]
            yield {
                "id": f"{arch}:{tag}",
                "backend": "open_clip",
                "cached": listing.cached(entry) is not None,
                "source": listing.weights_file(entry)[0],
            }


def _matches(name: str, wanted: str) -> bool:
    name, wanted = name.casefold(), wanted.casefold()
    return fnmatch.fnmatchcase(name, wanted) if any(c in wanted for c in "*?[") else wanted in name


def _open_clip(name: ModelName) -> dict[str, Any]:
    if name.kind == "tag":
        entry = listing.pretrained()[name.arch][name.tag]
        config = listing.config(name.arch)
        path = listing.cached(entry)
        where = {"cached": path is not None, "source": listing.weights_file(entry)[0], "file": path and str(path)}
        return {"arch": name.arch, **_architecture(config, entry), **where, "tags": listing.tags(name.arch)}
    if name.kind == "checkpoint":
        beside = sidecar(name.path.parent) or {}
        preprocess = beside.get("preprocess_cfg") or listing.usual_preprocess(name.arch)
        config = listing.config(name.arch)
        where = {"cached": True, "source": str(name.path), "file": str(name.path)}
        return {"arch": name.arch, **_architecture(config, preprocess), **where}
    path = listing.cached_in_hub(name.repository, (listing.HUB_CONFIG,)) if name.kind == "hub" else None
    folder = name.path if name.kind == "folder" else path and path.parent
    described = sidecar(folder) if folder else None
    weights = next((path for file in listing.hub_names() if folder and (path := folder / file).is_file()), None)
    where = {
        "cached": weights is not None,
        "source": name.repository or str(name.path),
        "file": weights and str(weights),
    }
    return (_architecture(described["model_cfg"], described.get("preprocess_cfg") or {}) if described else {}) | where


def _architecture(config: dict[str, Any], preprocess: dict[str, Any]) -> dict[str, Any]:
    """What an open_clip config says, in the words of `Encoder` and `Preprocess`."""
    constants = listing.plain_module("constants")
    vision, text = config["vision_cfg"], config["text_cfg"]
    size = vision.get("image_size", 224)
    return {
        "dim": config["embed_dim"],
        "context_length": text.get("context_length", 77),
        "activation": "quickgelu" if config.get("quick_gelu") else "gelu",
        "logit_bias": "init_logit_bias" in config,
        "image_tower": vision.get("timm_model_name")
        or ("ViT" if isinstance(vision.get("layers", 12), int) else "ResNet"),
        "text_tower": text.get("hf_model_name") or "transformer",
        "tokenizer": text.get("hf_tokenizer_name") or "clip",
        "preprocess": {
            "size": [size, size] if isinstance(size, int) else size,
            "mean": list(preprocess.get("mean") or constants.OPENAI_DATASET_MEAN),
            "std": list(preprocess.get("std") or constants.OPENAI_DATASET_STD),
            "resize_mode": preprocess.get("resize_mode") or "shortest",
            "interpolation": preprocess.get("interpolation") or "bicubic",
        },
    }


def _encoder(encoder: Any) -> dict[str, Any]:
    identity = encoder.identity
    return {
        "digest": identity.digest,
        "dim": identity.dim,
        "backbone_dim": encoder.backbone_dim,
        "context_length": encoder.context_length,
        "activation": identity.activation,
        "logit_bias": encoder.logit_bias is not None,
        "preprocess": asdict(identity.preprocess),
    }


def _exported(name: ModelName) -> dict[str, Any]:
    from clipkit.models.exported import identity_of, read_manifest, runtime_of, towers_of

    manifest = read_manifest(name.path)
    identity = identity_of(manifest)
    return {
        "name": identity.name,
        "backend": runtime_of(manifest),
        "towers": list(towers_of(manifest)),
        "digest": identity.digest,
        "dim": identity.dim,
        "backbone_dim": manifest.get("backbone_dim"),
        "context_length": manifest["context_length"],
        "activation": identity.activation,
        "precision": manifest["precision"],
        "pixels": manifest.get("pixels", "normalised"),
        "logit_bias": manifest["logit_bias"] is not None,
        "preprocess": asdict(identity.preprocess),
    }
