"""What of a record goes into a pack, checked in worker threads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from clipkit.errors import RecordError
from clipkit.images.opener import Opener
from clipkit.packing.samples import NOTE, Found, Images, copies_of, marked
from clipkit.stream.fieldnames import mapping_hint
from clipkit.stream.record import Record, image_of
from clipkit.stream.stage import Drop, Outcome, Stage

_MOST_JSON = 16 << 20  # bytes of fields that a reader of shards takes


@dataclass(frozen=True, slots=True)
class _Item:
    record: Record
    image: Found | None


class Pack(Stage):
    """Adds `clipkit.pack`, a note on the image's bytes for the `PackSink` that takes it out again; drops records with
    `n` 0 and those that a verb marked as dropped.

    config: images: bytes of images are packed, so that each is opened; text_only: records without an image have a
    place, too. runtime: root, confine, remote, as `Opener` takes them.
    """

    verb: ClassVar[str] = "pack"
    adds: ClassVar[tuple[str, ...]] = (NOTE,)
    defaults: ClassVar[dict[str, Any]] = {"images": True, "text_only": True}

    def __init__(self, config: dict[str, Any], runtime: dict[str, Any] | None = None) -> None:
        super().__init__(config, runtime)
        root, confine = self.runtime.get("root"), self.runtime.get("confine", False)
        self.images = Images(Opener(root, confine=confine, remote=self.runtime.get("remote", False)), root)

    @property
    def opens_images(self) -> bool:
        return bool(self.config["images"])

    @property
    def notices(self) -> list[str]:
        """What a person should hear at the end of a run."""
        absent = self.images.absent
        return [f"{absent:,} sample{'s' * (absent > 1)} without an image"] if absent else []

    def stamp(self, record: Record) -> str:
        image = record.get("image") if self.opens_images else None
        return self.images.stamp(image) if isinstance(image, str) else ""

    def prepare(self, record: Record) -> _Item:
        if NOTE in record:
            raise RecordError("bad-field", f"field {NOTE!r} is a name that pack needs", "rename it")
        if marked(record) or not copies_of(record) or not self.opens_images:
            return _Item(record, None)
        image = image_of(record) if record.get("image") not in (None, "") else None
        if image is None and not (self.config["text_only"] and isinstance(record.get("text"), str)):
            wanted = ["image", "text"] if self.config["text_only"] else ["image"]
            raise RecordError("missing-field", f"no field {' or '.join(wanted)}", mapping_hint(wanted, record))
        if len(record.encode()) > _MOST_JSON:
            raise RecordError("record-too-large", f"more than {_MOST_JSON >> 20} MiB of fields")
        return _Item(record, self.images.read(image) if image else None)

    def process(self, items: list[Any]) -> list[Outcome]:
        return [self._noted(item.record, item.image) for item in items]

    def _noted(self, record: Record, image: Found | None) -> Outcome:
        if marked(record):
            return Drop(self.verb, "marked", record["drop"])
        if not copies_of(record):
            return Drop(self.verb, "n is 0", 0, 1)
        own = Record.parse(record.encode())  # without what the source says of where it lies
        if own.id is None and record.id is not None:
            record["id"] = record.id
        if image is not None:
            self.images.hold(image)
            record[NOTE] = image.note()
        return record
