"""More images and classes for an adapter that has class means, without the images it was made of."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, ClassVar

from clipkit.errors import UsageError
from clipkit.methods.adapters import files
from clipkit.methods.adapters.folding import trusted
from clipkit.methods.adapters.prototypes import Prototypes
from clipkit.methods.adapters.tuning import accuracy
from clipkit.models.base import Encoder
from clipkit.stages.labelled_images import LabelledImages
from clipkit.stages.support import OTHER, SUPPORT, TEST, VALIDATION, Gathered, gather
from clipkit.stream.record import Record
from clipkit.stream.spool import Rows
from clipkit.text.classifier import prompts
from clipkit.text.labels import Labels

_DECIMALS = 6


class UpdateAdapter(LabelledImages):
    """Adds labelled images to an adapter of the method `prototypes`; classes it doesn't know come after its own.

    config: as `LabelledImages` takes it, but model None is the adapter's, and templates [] are those it was made with;
    labels are about the new classes alone; update: the adapter's folder. What was chosen stays: nothing is tuned.
    runtime: as `LabelledImages` takes it; adapter: what the summary calls the new adapter's folder.
    """

    verb: ClassVar[str] = "train-adapter"
    defaults: ClassVar[dict[str, Any]] = {**LabelledImages.defaults, "model": None, "update": None}

    def setup(self) -> None:
        self.saved = files.load(self.config["update"])
        task, method = self.saved.adapter.task_, self.saved.adapter.name
        if not isinstance(self.saved.adapter, Prototypes):
            hint = "fit it anew with all images; of the method prototypes an adapter can be updated"
            raise UsageError(f"--update: {self.config['update']} is of {method}, which needs the old images too", hint)
        named = {"model": self.config["model"] or self.saved.model.name, "on": task.space}
        templates = self.config["templates"] or self.saved.said.get("templates") or []
        self.config = {**self.config, **named, "templates": templates}
        super().setup()
        if self.labels:  # those that it knows may come again
            described = self.labels.descriptions or {}
            known = {name: described.get(name, ()) for name in (*task.classes, *self.labels.names)}
            self.labels = replace(self.labels, names=tuple(known))
        self._gathered: Gathered | None = None
        self._report: dict[str, Any] = {}

    def attach(self, encoder: Encoder) -> Encoder:
        self.saved.require(encoder.identity)
        return encoder

    def learn(self, rows: Rows) -> None:
        if not len(rows):
            return
        heads, old = self.heads(rows), self.saved.adapter.task_
        found = {head.said.label for head in heads if head.said.role == SUPPORT}
        new = tuple(sorted(found - set(old.classes)))
        if self.labels:
            new = tuple(name for name in self.labels.names if name in new)
        gathered = self._gathered = gather(heads, (*old.classes, *new))
        described = self.labels or Labels(new)
        texts = dict(zip(old.classes, old.prompts, strict=True))
        texts |= {name: tuple(prompts(described, name, self.templates)) for name in new}
        task = self.task(Labels(gathered.classes, texts))
        test = self.samples(rows, task, gathered.heads[TEST])
        adapter = self.saved.adapter
        assert isinstance(adapter, Prototypes)
        more = self.samples(rows, task, gathered.heads[SUPPORT], self.config["views"])
        with trusted(self.config["update"]):
            before = adapter.fold()
            adapter.update(more)
        self._report = {
            "adapter": self.runtime.get("adapter"),
            "model": str(self.encoder.identity),
            "method": adapter.name,
            "updated": self.saved.via,
            "images": gathered.counts(),
            "classes": len(gathered.classes),
            "added": list(new),
            "left_out": gathered.left_out,
        }
        if len(test):
            assert before is not None
            known = {
                name: round(value, _DECIMALS)
                for name, value in (
                    ("zero_shot", accuracy(task.zero_shot(test.plain), test.labels)),
                    ("before", accuracy(before.logits(test.plain), test.labels)),
                    ("after", accuracy(adapter.logits(test.plain), test.labels)),
                )
            }
            self._report["accuracy"] = {"test": known | {"images": len(test)}}

    def summary(self) -> Iterator[Record]:
        if self._report:
            yield Record(self._report)

    @property
    def facts(self) -> dict[str, Any]:
        return self._report

    @property
    def notices(self) -> list[str]:
        if self._gathered is None:
            return super().notices
        unused = sum(len(self._gathered.heads[role]) for role in (VALIDATION, OTHER))
        said = [f"{unused:,} images for val or forgetting are not used: an update chooses nothing"] if unused else []
        return [*super().notices, *self._gathered.notices, *said]

    @property
    def results(self) -> list[str]:
        if not self._report:
            return []
        said = self._report
        lines = [f"{said['images'][SUPPORT]:,} images added, {len(said['added']):,} new of {said['classes']:,} classes"]
        if measured := said.get("accuracy"):
            test = measured["test"]
            lines.append(f"test: {test['before']:.3f} before, {test['after']:.3f} after")
        return lines

    def save(self, folder: str) -> None:
        """Write the adapter, once it has learned."""
        kept = {name: self.saved.said[name] for name in ("shots", "views", "selection") if name in self.saved.said}
        report = {name: value for name, value in self._report.items() if name != "adapter"}
        said = kept | {"templates": list(self.templates), "report": report}
        files.save(folder, self.saved.adapter, self.encoder.identity, said)
