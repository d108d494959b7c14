"""Images that are URLs become files in a folder."""

from __future__ import annotations

import os
from concurrent.futures import Future
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar

from clipkit.errors import RecordError, UsageError
from clipkit.references import is_remote, shown
from clipkit.stream.record import Record
from clipkit.stream.sources.places import Places
from clipkit.stream.stage import Outcome, Stage

if TYPE_CHECKING:
    from clipkit.fetching.downloader import Downloader
    from clipkit.fetching.folder import Saved


@dataclass(frozen=True, slots=True)
class _Item:
    record: Record
    coming: Future[Saved] | None


class Fetch(Stage):
    """Downloads `image` where it is a URL; local references pass as they are.

    The record's `image` becomes the file's path, `url` keeps the address, and sha256, width, height and
    fetch {status, bytes} are added. A record that names a `sha256` and gets other bytes fails.

    config: to, the folder as records name it; allow_private; ignore_robots. runtime: folder, where that is; root; and
    concurrency, per_host, retries, backoff, timeout, user_agent as `Manners` has them.
    """

    verb: ClassVar[str] = "fetch"
    adds: ClassVar[tuple[str, ...]] = ("url", "sha256", "width", "height", "fetch")
    defaults: ClassVar[dict[str, Any]] = {"allow_private": False, "ignore_robots": False}

    batch_size = 16
    lanes = 1  # it only waits: the downloads have a thread of their own
    item_bytes = 1 << 13
    read_ahead = 16_384  # records: one slow server must not keep the others waiting for its turn in the output

    downloader: Downloader

    def setup(self) -> None:
        from clipkit.fetching.downloader import Downloader, Manners
        from clipkit.fetching.folder import Folder
        from clipkit.images.remote import is_public

        self.reads = ("image",)
        known = {field.name for field in fields(Manners)}
        asked = {name: value for name, value in self.runtime.items() if name in known}
        manners = Manners(**asked, ignore_robots=self.config["ignore_robots"])
        allowed = _anywhere if self.config["allow_private"] else is_public
        folder = Folder(self.runtime.get("folder") or self.config["to"])
        self.downloader = Downloader(folder, manners, allowed=allowed)
        self._root = Places(self.runtime.get("root")).root

    @property
    def opens_images(self) -> bool:
        return True

    @property
    def notices(self) -> list[str]:
        reused, repeated = self.downloader.reused, self.downloader.repeated
        told = [f"{reused:,} images were there already"] if reused else []
        return told + ([f"{repeated:,} tries were repeated"] if repeated else [])

    def stands(self, lines: list[bytes]) -> bool:
        """Whether the downloaded file is there, in its full size."""
        kept = Record.parse(lines[0])
        size = kept.lookup("fetch.bytes")
        if size is None:
            return True
        try:
            return bool(os.path.getsize(os.path.join(self._root, kept["image"])) == size)
        except OSError:
            return False

    def prepare(self, record: Record) -> _Item:
        image = record["image"]
        if not isinstance(image, str):
            raise RecordError("bad-field", "image: expected a text, a path or a URL")
        if not is_remote(image):
            return _Item(record, None)
        if record.get("url") not in (None, image):
            message = "the address would go to 'url', which says something else"
            raise RecordError("field-exists", message, "rename that first: clipkit set --rename page=url")
        return _Item(record, self.downloader.submit(image))

    def process(self, items: list[Any]) -> list[Outcome]:
        return [self._outcome(item) for item in items]

    def _outcome(self, item: _Item) -> Outcome:
        if item.coming is None:
            return item.record
        try:
            saved = item.coming.result()
        except RecordError as error:
            return RecordError(error.kind, error.message, error.hint)  # equal URLs share one
        return self._add(item.record, saved)

    def _add(self, record: Record, saved: Saved) -> Outcome:
        expected = record.get("sha256")
        if expected is not None and str(expected).lower() != saved.sha256:
            message = f"{shown(record['image'])}: not the image whose sha256 the record names"
            return RecordError("fetch-changed", message, "it was replaced since the list was made")
        if record.get("id") is None and record.id == record.key:  # which came from the URL: it stays the same
            record["id"] = record.id
        record["url"] = record["image"]
        record["image"] = os.path.join(self.config["to"], saved.name)
        status = {"status": 200, "bytes": saved.bytes}
        values = {"sha256": saved.sha256, "width": saved.width, "height": saved.height, "fetch": status}
        for name, value in values.items():
            record[name] = value
        for name, value in values.items():  # a second time, so that `via` follows them all
            record.add(name, value, self.verb)
        return record

    def stop(self) -> None:
        self.downloader.stop()

    def close(self) -> None:
        if hasattr(self, "downloader"):
            self.downloader.close()


def place(to: str, root: str | None) -> str:
    """How records name a folder that was typed as `to`. Raises UsageError if it is a file."""
    if os.path.lexists(to) and not os.path.isdir(to):
        raise UsageError(f"--to {to} is a file", "name a folder")
    return Places(root).reference_to(to)


def _anywhere(address: str) -> bool:
    return True
