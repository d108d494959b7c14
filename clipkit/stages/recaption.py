"""Captions are written by a captioner, added to those there are, and one of them is put to use."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from msgspec.structs import replace as replace_

from clipkit.errors import RecordError, UsageError
from clipkit.methods import CAPTIONERS
from clipkit.methods.captioners.base import Captioner, Request, Written
from clipkit.stream.captions import Caption, cleaned, in_use_first, original_of, with_captions
from clipkit.stream.hashing import name_of, share
from clipkit.stream.record import Record, image_of
from clipkit.stream.stage import Outcome, Stage
from clipkit.stream.table import Column

if TYPE_CHECKING:
    from clipkit.features.embedder import Embedder, ImageItem
    from clipkit.images.opener import Opener

# Of the flags that not every captioner takes, those that decide what it writes; the others are in the runtime.
DECIDING = ("recipe", "server_model")
COLUMNS = (
    Column("id", 24, lambda r: r.id or ""),
    Column("text", 72, lambda r: str(r.get("text") or "")),
    Column("texts", 5, lambda r: str(len(r.get("texts") or ())), right=True),
)
_IN_HAND = 256  # records at least, of a captioner that waits: as many requests as servers are asked at once, and more


def method_of(name: str | None, recipe: str | None, settings: Mapping[str, str]) -> tuple[str, dict[str, Any]]:
    """The captioner that flags name, or their recipe does, and its parameters. Raises UsageError."""
    if recipe is not None:
        from clipkit.prompts.recipes import load

        asked = load(recipe).method
        if asked == "labels":
            raise UsageError(f"the recipe {recipe} asks about classes", "clipkit prompts generate --kind takes it")
        if name not in (None, asked):
            raise UsageError(f"the recipe {recipe} is for the method {asked}, not {name}", "leave out --method")
        name = asked
    name = name or Recaption.defaults["method"]
    kind: type[Captioner] = CAPTIONERS.get(name)
    return name, kind.from_settings(settings).params


def unused_model_flags(name: str, given: Mapping[str, Any], improve_by: float | None) -> None:
    """Raise UsageError for a flag about the model that neither the captioner nor `--improve-by` has use for."""
    kind: type[Captioner] = CAPTIONERS.get(name)
    if kind.asks_model or improve_by is not None:
        return
    for flag, value in given.items():
        if value and flag.removeprefix("--") not in kind.takes:
            raise UsageError(f"{flag} is not for the method {name}", "it is for captions that --improve-by compares")


class _Picture:
    """A record's image: read once, and made ready for the model once, when somebody asks."""

    def __init__(self, reference: str, opener: Opener, embedder: Embedder | None) -> None:
        self.reference, self._opener, self._embedder = reference, opener, embedder
        self._data = b""
        self._item: ImageItem | None = None

    def data(self) -> bytes:
        self._data = self._data or self._opener.read(self.reference)
        return self._data

    def image(self) -> ImageItem:
        from clipkit.features.views import STANDARD

        assert self._embedder is not None
        if self._item is None:
            self._item = self._embedder.prepare_views(self.data(), {"plain": STANDARD["plain"]})["plain"]
        return self._item


@dataclass(slots=True)
class _Item:
    record: Record
    request: Request
    begun: Any


class Recaption(Stage):
    """Adds captions to `texts`, with who wrote them, and sets `text`. The original is always among `texts`.

    config: method (a captioner), params (its own, JSON), seed, recipe and server_model (where it takes them);
    use, what `text` becomes: `new`, the first new caption; `mix`, the original or one of the new ones, drawn uniformly;
    `keep`, what it was. improve_by: a new caption stays only where its cosine with the image is above that of the
    caption in use by more than this; the best comes first. None: all stay. And model, ... as `open_embedder` takes
    them, for captioners that ask the model and for improve_by.
    runtime: as `open_embedder` takes it; options, the flags that not every captioner takes.

    What is counted is of this run: records that an earlier one did are not in it.
    """

    verb: ClassVar[str] = "recaption"
    adds: ClassVar[tuple[str, ...]] = ("text", "texts")
    defaults: ClassVar[dict[str, Any]] = {
        "method": "tags",
        "params": {},
        "seed": 0,
        "recipe": None,
        "server_model": None,
        "use": "new",
        "improve_by": None,
        "model": "lite",
        "exact_decode": False,
    }

    embedder: Embedder | None = None
    opener: Opener

    def __init__(self, config: dict[str, Any], runtime: dict[str, Any] | None = None) -> None:
        super().__init__(config, runtime)
        kind: type[Captioner] = CAPTIONERS.get(self.config["method"])
        deciding = {name: self.config[name] for name in DECIDING if self.config[name] is not None}
        options = self.runtime.get("options", {}) | deciding
        if unused := [name for name in options if name not in kind.takes]:
            flag = f"--{unused[0].replace('_', '-')}"
            raise UsageError(f"{flag} is not for the method {kind.name}", "name one that asks a server, or a recipe")
        try:
            params = kind.checked(self.config["params"])
            self.captioner = kind(**params, seed=self.config["seed"], options=options)
        except ValueError as error:
            raise UsageError(str(error)) from None
        self._margin: float | None = self.config["improve_by"]
        self._asks_model = kind.asks_model or self._margin is not None
        self._opens = kind.needs_image or self._margin is not None
        self.reads = ("image",) * self._opens
        self._counts: Counter[str] = Counter()
        self._lock = threading.Lock()

    def setup(self) -> None:
        captioner = self.captioner
        if self._asks_model:
            from clipkit.features.embedder import open_embedder

            self.embedder = open_embedder(self.config, self.runtime)
            self.item_bytes += 2 * self.embedder.item_bytes
            self.opener = self.embedder.opener
        elif self._opens:
            from clipkit.images.opener import Opener

            self.opener = Opener.of(self.runtime)
        captioner.setup(self.embedder if captioner.asks_model else None, self.config.get("device") or "auto")
        self.batch_size, self.lanes = captioner.batch_size, captioner.lanes
        if captioner.waits:
            self.waits = self._margin is None  # with one, pictures would have to be compared after a Ctrl-C
            self.item_bytes += 1 << 20  # an image on its way
            self.read_ahead = max(_IN_HAND, 4 * (captioner.options.get("concurrency") or 0))

    @property
    def opens_images(self) -> bool:
        """Also where a server is asked: some answers are always bad."""
        return self._opens or self.captioner.waits

    @property
    def notices(self) -> list[str]:
        said = [*(self.embedder.notices if self.embedder else ()), *self.captioner.notices]
        if self.embedder and self._margin is not None and self.captioner.asks_model and self._counts["kept"]:
            name = self.embedder.encoder.identity.name
            said.append(f"{name} judged captions that it wrote itself: ask another, with clipkit score --model")
        return said

    @property
    def results(self) -> list[str]:
        counts, said = self._counts, []
        if counts["none"]:
            said.append(f"nothing to add to {counts['none']:,} of {counts['records']:,} records")
        if self._margin is not None:
            said.append(
                f"{counts['improved']:,} of {counts['records']:,} records improved: {counts['kept']:,} of"
                f" {counts['written']:,} new captions score higher by more than {self._margin:g}"
            )
        return said

    @property
    def facts(self) -> dict[str, Any]:
        counts = self._counts
        found: dict[str, Any] = {name: counts[name] for name in ("records", "written", "kept")}
        if self._margin is not None:
            found["improved"] = counts["improved"]
        return found | self.captioner.facts

    def fingerprint(self) -> dict[str, Any]:
        asked = {name: self.config[name] for name in ("method", "seed", "use", "improve_by")}
        asked |= {"params": self.captioner.params, "captioner": self.captioner.identity, **self.captioner.decides}
        if self.embedder:
            asked |= {"exact_decode": self.config["exact_decode"], "space": self.embedder.encoder.space}
        return asked

    def stamp(self, record: Record) -> str:
        image = record.get("image")
        return self.opener.stamp(image) if self._opens and isinstance(image, str) else ""

    def prepare(self, record: Record) -> _Item:
        found = in_use_first(record)
        if self.captioner.needs_text and not found:
            hint = "a caption is rewritten here: name its field with --map text=FIELD, or write one from the image"
            raise RecordError("no-caption", "no caption in 'text' or 'texts'", hint)
        reference = image_of(record) if self._opens else ""
        picture = _Picture(reference, self.opener, self.embedder) if self._opens else None
        request = Request(
            _name(record),
            found,
            reference,
            picture.data if picture else None,
            picture.image if picture and self.embedder else None,
            record,
        )
        begun = self.captioner.begin(request)
        if self._margin is not None and request.image:
            request.image()
        return _Item(record, request, begun)

    def process(self, items: list[Any]) -> list[Outcome]:
        written = [_checked(one) for one in self.captioner.finish([item.begun for item in items])]
        good = [(item, one) for item, one in zip(items, written, strict=True) if isinstance(one, Written)]
        kept = iter(self._improving(good) if self._margin is not None else [list(one.captions) for _, one in good])
        self._count(good)
        return [
            one if isinstance(one, RecordError) else self._added(item, next(kept))
            for item, one in zip(items, written, strict=True)
        ]

    def stop(self) -> None:
        self.captioner.stop()

    def close(self) -> None:
        self.captioner.close()
        if self.embedder:
            self.embedder.close()

    def _improving(self, some: list[tuple[_Item, Written]]) -> list[list[Caption]]:
        """Of each record the new captions that stay, best first; the negative ones where another does."""
        from clipkit.methods.captioners.base import joint_features
        from clipkit.methods.scorers.clip import cosine

        assert self.embedder is not None and self._margin is not None
        images = joint_features(self.embedder, [item.request.image() for item, _ in some if item.request.image])
        texts = {one.text for _, written in some for one in written.captions if not one.negative}
        texts |= {item.request.text for item, _ in some if item.request.text}
        rows = dict(zip(sorted(texts), self.embedder.encode_texts(sorted(texts)), strict=True))
        kept = []
        for (item, written), image in zip(some, images, strict=True):
            old = item.request.text
            least = cosine(image, rows[old]) + self._margin if old else float("-inf")
            scored = [(cosine(image, rows[one.text]), one) for one in written.captions if not one.negative]
            better = [one for score, one in sorted(scored, key=lambda pair: -pair[0]) if score > least]
            kept.append(better + [one for one in written.captions if one.negative and better])
        return kept

    def _added(self, item: _Item, new: list[Caption]) -> Record:
        record = item.record
        with self._lock:
            self._counts["kept"] += sum(not caption.negative for caption in new)
            self._counts["improved"] += bool(new)
        if not new:
            return record
        maker = f"{self.verb}/{self.config['method']}/{self.captioner.identity}"
        text, texts = self._chosen(record, item.request, new), with_captions(record, new)
        if texts != record.get("texts"):
            record.add("texts", texts, maker)
        if text != record.get("text"):
            if any(text == caption.text for caption in new if not caption.negative):
                record.add("text", text, maker)
            else:  # it was there before: its maker isn't this run, and may be none
                record["text"] = text
                record.discard("via.text")
        return record

    def _chosen(self, record: Record, request: Request, new: list[Caption]) -> Any:
        """What `text` becomes."""
        fresh = [caption.text for caption in new if not caption.negative]
        if self.config["use"] == "keep" or not fresh:
            return record.get("text")
        if self.config["use"] == "new":
            return fresh[0]
        first = original_of(request.captions) or request.text
        choices = list(dict.fromkeys(text for text in (first, *fresh) if text))
        return choices[int(share(request.name, self.config["seed"], "recaption-mix") * len(choices))]

    def _count(self, some: list[tuple[_Item, Written]]) -> None:
        with self._lock:
            for _, written in some:
                self._counts["records"] += 1
                self._counts["none"] += not written.captions
                self._counts["written"] += sum(not caption.negative for caption in written.captions)


def _name(record: Record) -> str:
    name = name_of(record)
    return name if isinstance(name, str) else name.hex()


def _checked(written: Written | RecordError) -> Written | RecordError:
    """Captions as they may stand in a record: of one line, without control characters, none of them blank."""
    if isinstance(written, RecordError):
        return written
    clean = [replace_(caption, text=cleaned(caption.text)) for caption in written.captions]
    some = [caption for caption in clean if caption.text]
    if written.captions and not any(not caption.negative for caption in some):
        return RecordError("empty-answer", "the captions that were written are empty")
    return replace(written, captions=some)
