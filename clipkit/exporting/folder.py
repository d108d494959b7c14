"""The folder that an export is: its manifest, and the script that runs it with onnxruntime alone."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from typing import Any

from clipkit import __version__
from clipkit.exporting.base import Job, Written
from clipkit.exporting.script import script
from clipkit.models.exported import FORMAT, KIND
from clipkit.models.identity import file_sha256
from clipkit.models.names import MANIFEST

REPORT = "parity.json"
_NO_NETWORKS = frozenset({"tokenizer.json", "outliers.json"})  # the second tells of the samples, too


def write_manifest(job: Job, written: Written, runtime: str) -> None:
    """clipkit.json: what docs/models.md says, over all files that are in the folder now."""
    encoder, folder = job.source.encoder, job.folder
    identity = encoder.identity
    tokenizer = job.source.tokenizer(folder) if "text" in job.wish.towers else None
    found = sorted(path for path in folder.rglob("*") if path.is_file())  # Core ML's packages are folders
    files = {path.relative_to(folder).as_posix(): file_sha256(path) for path in found}
    extra = dict(identity.extra) | ({"pixels": "raw"} if job.wish.embed_preprocessing else {})
    weights = identity.weights
    if not written.same_weights:  # other weights are another model: its digest is that of the files that hold them
        networks = {name: digest for name, digest in files.items() if name not in _NO_NETWORKS}
        weights = hashlib.sha256(json.dumps([identity.weights, networks]).encode()).hexdigest()
    manifest: dict[str, Any] = {
        "format": FORMAT,
        "kind": KIND,
        "clipkit": __version__,
        "name": identity.name,
        "identity": {"weights": weights, "activation": identity.activation, "dim": identity.dim, "extra": extra},
        "preprocess": asdict(identity.preprocess),
        "pixels": "raw" if job.wish.embed_preprocessing else "normalised",
        "logit_scale": encoder.logit_scale,
        "logit_bias": encoder.logit_bias,
        "context_length": encoder.context_length,
        "backbone_dim": encoder.backbone_dim if "image" in job.wish.towers else None,
        "few_shot_space": encoder.few_shot_space,
        "towers": list(job.wish.towers),
        "runtime": runtime,
        "tokenizer": tokenizer,
        "precision": written.precision,
        "row_independent": written.row_independent,
        "files": files,
        "bytes": {name: (folder / name).stat().st_size for name in files},
        **written.more,
    }
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def write_script(job: Job) -> None:
    """run.py: the folder's networks without clipkit or torch, where a program for its runtime is known."""
    program = script(json.loads((job.folder / MANIFEST).read_text(encoding="utf-8")))
    if program is not None:
        (job.folder / "run.py").write_text(program, encoding="utf-8")
