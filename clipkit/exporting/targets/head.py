"""A classifier in one graph: picture in, probabilities out."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from clipkit.errors import UsageError
from clipkit.exporting.base import TOWERS, Job, Written
from clipkit.exporting.targets.onnx import Onnx
from clipkit.models.identity import file_sha256
from clipkit.models.names import MANIFEST

if TYPE_CHECKING:
    from clipkit.methods.adapters.files import Saved
    from clipkit.models.base import Encoder

FORMAT = 1
KIND = "head"
GRAPH, LABELS, SCRIPT = "head.onnx", "labels.txt", "run.py"
_SCRIPT = '''\
"""What is on a photo, without clipkit: every label and its probability, the likeliest first.

    pip install numpy pillow onnxruntime
    python run.py photo.jpg
"""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image, ImageOps

here = Path(__file__).resolve().parent
if len(sys.argv) != 2:
    sys.exit(__doc__)
classes = json.loads((here / "clipkit.json").read_text(encoding="utf-8"))["classes"]
{pixels}
network = onnxruntime.InferenceSession(here / "head.onnx", providers=["CPUExecutionProvider"])
probabilities = network.run(["probabilities"], {{"pixels": pixels}})[0][0]
for number in np.argsort(-probabilities, kind="stable"):
    print(classes[number], f"{{probabilities[number]:.6f}}", sep="\\t")
'''


class Head(Onnx):
    """One ONNX graph that classifies: pixels in, probabilities of fixed labels out. They are --labels, as zeroshot
    takes them, or an adapter's classes. No text tower and no tokenizer, and of the image tower what the labels need."""

    takes: ClassVar[frozenset[str]] = frozenset({"int8", "opset", "embed_preprocessing", "labels"})
    runtime = ""
    answers = True

    def check(self) -> None:
        super().check()
        wish = self.wish
        if wish.towers not in (TOWERS, ("image",)):
            raise UsageError("a head has no text tower: its labels are fixed", "leave --tower out")
        if wish.labels is None and wish.adapter is None:
            raise UsageError("a head of which labels?", "name them: --labels A,B,... or @FILE; or --adapter DIR")
        if wish.labels is not None and wish.adapter is not None:
            raise UsageError("an adapter has labels of its own", "leave --labels out, or --adapter")
        if wish.labels is not None:
            from clipkit.text.labels import parse_labels

            parse_labels(wish.labels)

    def write(self, job: Job) -> Written:
        from clipkit.exporting import answers, embedded, files, heads
        from clipkit.methods.adapters.data import Task

        question = answers.asked(job.source.encoder, job.source.saved, job.wish)
        task = question if isinstance(question, Task) else question.task_
        steps = heads.zero_shot_steps(task) if isinstance(question, Task) else heads.adapter_steps(question)
        graphs, written = self.networks(replace(job, wish=replace(job.wish, towers=("image",))))
        plain, made = job.scratch / GRAPH, job.folder / GRAPH
        heads.write(graphs["image"], steps, plain)
        alone = written.row_independent and files.rows_stand_alone(plain, job.source.noise("image"))
        if job.wish.embed_preprocessing:
            embedded.with_preprocessing(plain, job.source.encoder.identity.preprocess, made)
        else:
            files.ship(plain, made, external=False)
        facts = {"classes": len(task.classes), "opset": files.require_opset(made, job.wish.opset)}
        written = replace(written, row_independent=alone, facts={**written.facts, **facts})
        _describe(job, written, task.classes)
        return written

    def open(self, folder: Path) -> Encoder:
        from clipkit.exporting.answers import HeadAnswers

        return HeadAnswers(folder)

    def reference(self, encoder: Encoder, saved: Saved | None) -> Encoder:
        from clipkit.exporting.answers import SourceAnswers, asked

        return SourceAnswers(encoder, asked(encoder, saved, self.wish))


def _describe(job: Job, written: Written, classes: tuple[str, ...]) -> None:
    """labels.txt, run.py and clipkit.json."""
    from clipkit import __version__
    from clipkit.exporting.script import pixels

    folder, encoder, saved = job.folder, job.source.encoder, job.source.saved
    identity = encoder.identity
    lines = [" ".join(name.split()) for name in classes]  # a name may hold a line break; the manifest has it as it is
    (folder / LABELS).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    adapter = saved and {"method": saved.adapter.name, "digest": saved.digest, "blend": saved.adapter.blend}
    manifest: dict[str, Any] = {
        "format": FORMAT,
        "kind": KIND,
        "clipkit": __version__,
        "name": identity.name,
        "identity": {key: getattr(identity, key) for key in ("weights", "activation", "dim", "extra", "digest")},
        "preprocess": asdict(identity.preprocess),
        "pixels": "raw" if job.wish.embed_preprocessing else "normalised",
        "classes": list(classes),
        "templates": [] if saved else list(job.wish.templates or encoder.default_templates),
        "adapter": adapter,
        "logit_scale": encoder.logit_scale,
        "logit_bias": encoder.logit_bias,
        "runtime": "onnx",
        "precision": written.precision,
        "row_independent": written.row_independent,
        **written.more,
    }
    (folder / SCRIPT).write_text(_SCRIPT.format(pixels=pixels(manifest)), encoding="utf-8")
    manifest["files"] = {path.name: file_sha256(path) for path in sorted(folder.iterdir())}
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
