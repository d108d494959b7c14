"""Any source as records, with what only the images themselves can tell."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from clipkit.stages.select import Cat
from clipkit.stream.record import Record
from clipkit.stream.stage import Outcome, Stage

if TYPE_CHECKING:
    from clipkit.images.opener import Opener


class ScanPlain(Cat):
    """Keeps every record as the source makes it; no image is opened."""

    verb: ClassVar[str] = "scan"


@dataclass(frozen=True, slots=True)
class _Facts:
    record: Record
    values: dict[str, Any]


class Scan(Stage):
    """Adds `sha256` of the image's bytes (hex), `width` and `height` in pixels after EXIF orientation.

    config: hash, size: which of them. runtime: root, confine, remote, as `Opener` takes them.
    """

    verb: ClassVar[str] = "scan"
    reads: tuple[str, ...] = ("image",)
    adds: ClassVar[tuple[str, ...]] = ("sha256", "width", "height")

    batch_size = 16

    opener: Opener

    def setup(self) -> None:
        from clipkit.images.opener import Opener

        self.opener = Opener.of(self.runtime)

    def stamp(self, record: Record) -> str:
        image = record.get("image")
        return self.opener.stamp(image) if isinstance(image, str) else ""

    def prepare(self, record: Record) -> _Facts:
        from clipkit.images.decode import probe

        data = self.opener.read(record["image"])
        values: dict[str, Any] = {}
        if self.config["hash"]:
            values["sha256"] = hashlib.sha256(data).hexdigest()
        if self.config["size"]:
            size = probe(data, self.opener.limits)
            values |= {"width": size.width, "height": size.height}
        return _Facts(record, values)

    def process(self, items: list[Any]) -> list[Outcome]:
        return [self._add(item) for item in items]

    def _add(self, item: _Facts) -> Record:
        for name, value in item.values.items():
            item.record[name] = value
        for name, value in item.values.items():  # a second time, so that `via` follows them all
            item.record.add(name, value, self.verb)
        return item.record
