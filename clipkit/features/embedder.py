"""What every verb that looks at images or captions shares: one opening, one decode, one encoding, one cache."""

from __future__ import annotations

import hashlib
import itertools
import os
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import numpy as np

from clipkit.errors import ClipkitError, RecordError
from clipkit.features.cache import Cache, image_key, text_key, warn_stderr
from clipkit.stream.record import Record, image_of

if TYPE_CHECKING:
    from PIL import Image

    from clipkit.features.store import Store
    from clipkit.features.views import View
    from clipkit.images.opener import Opener
    from clipkit.models.base import Encoder, Preprocess

JOINT: Final = "joint"
BACKBONE: Final = "backbone"
_TEXTS_AT_ONCE: Final = 256

T = TypeVar("T")


@dataclass(slots=True)
class ImageItem:
    """An image ready for `Embedder.encode`: the vectors that the cache knew, or else the model's input.

    space: `Encoder.space` when it was prepared. keys: output -> cache key. vectors: output -> f32 [d].
    pixels: f32 [3, h, w], or None where nothing is to compute.
    """

    space: str
    keys: dict[str, bytes]
    vectors: dict[str, np.ndarray]
    pixels: np.ndarray | None


@dataclass(frozen=True, slots=True)
class ImageFeatures:
    """joint: unit rows f32 [n, d]. backbone: f32 [n, b] as the model gives them, or None if not asked for."""

    joint: np.ndarray
    backbone: np.ndarray | None = None


class Embedder:
    """Images and texts to features, through the cache. Warm equals cold, bit for bit: a tower that the model lacks is
    refused before anything is looked up.

    Its methods may be called from several threads; `encode` and `encode_texts` by as many as `Encoder.lanes` allows.
    """

    def __init__(
        self,
        encoder: Encoder,
        opener: Opener,
        cache: Cache,
        *,
        exact_decode: bool = False,
        store: Store | None = None,
    ) -> None:
        self.encoder = encoder
        self.opener = opener
        self._cache = cache
        self._fit = None if exact_decode else short_side(encoder.identity.preprocess)
        self._decode_mode = "exact" if exact_decode else "scaled"
        self._store = store
        self._numbers = itertools.count()
        self._cut = 0
        self._lock = threading.Lock()

    @property
    def item_bytes(self) -> int:
        """The most an ImageItem holds."""
        height, width = self.encoder.identity.preprocess.size
        return 4 * (3 * height * width + self.encoder.identity.dim + (self.encoder.backbone_dim or 0))

    @property
    def notices(self) -> list[str]:
        """What a person should hear at the end of a run."""
        name, limit = self.encoder.identity.name, self.encoder.context_length
        texts = "text was" if self._cut == 1 else "texts were"
        cut = [f"{self._cut:,} {texts} cut: {name} reads {limit} tokens"] if self._cut else []
        return [*self.encoder.notices, *cut]

    def prepare(self, record: Record, *, backbone: bool = False) -> ImageItem:
        """A record's image ready for `encode`: from the feature store by id where there is one, else `prepare_image`.

        For worker threads. Raises RecordError.
        """
        if self._store is None:
            return self.prepare_image(image_of(record), backbone=backbone)
        vectors = {JOINT: self._stored(record, "image")}
        if backbone:
            vectors[BACKBONE] = self._stored(record, "backbone")
        return ImageItem(self.encoder.space, {}, vectors, None)

    def stamp(self, record: Record) -> str:
        """What tells that a record's image changed: size and mtime, not its bytes; its very row in a feature store."""
        try:
            if self._store is None:
                return self.opener.stamp(image_of(record))
            return hashlib.blake2b(self._stored(record, "image").tobytes(), digest_size=8).hexdigest()
        except RecordError:
            return ""

    def _stored(self, record: Record, output: str) -> np.ndarray:
        assert self._store is not None
        if record.id is None:
            raise RecordError("missing-id", "no id to find its features by", "add a field id, uid or key")
        with self._lock:
            row: np.ndarray = self._store.features([record.id], output)[0]
        return row

    def prepare_image(self, reference: str, *, backbone: bool = False) -> ImageItem:
        """Open an image and look it up; where a vector is missing, decode it and make the model's input.

        For worker threads. Raises RecordError for an image that is missing, broken or refused.
        """
        self.encoder.require("image")
        data = self.opener.read(reference)
        content, widths, space = self._content(data), self._widths(backbone), self.encoder.space
        keys = {output: image_key(content, space, output, "plain", self._decode_mode) for output in widths}
        found = self._cache.get_many(keys.values())
        vectors = {output: found[key] for output, key in keys.items() if _fits(found.get(key), widths[output])}
        return ImageItem(space, keys, vectors, None if len(vectors) == len(keys) else self._pixels(data))

    def prepare_views(
        self,
        data: bytes,
        views: Mapping[str, View],
        exact: Image.Image | None = None,
        *,
        backbone: bool = False,
    ) -> dict[str, ImageItem]:
        """Views of one encoded image, each ready for `encode`: one look-up, and one decode where a vector is missing.

        views: by a name of the caller's; those with equal keys are made once. exact: the picture where it was decoded
        exactly already; it is taken unless the model's is to be decoded at reduced scale, so that nothing hangs on
        whether somebody else needed it. For worker threads. Raises RecordError.
        """
        self.encoder.require("image")
        content, space, widths = self._content(data), self.encoder.space, self._widths(backbone)
        keys = {
            view.key: {out: image_key(content, space, out, view.key, self._decode_mode) for out in widths}
            for view in views.values()
        }
        found = self._cache.get_many(key for outputs in keys.values() for key in outputs.values())
        made: dict[str, ImageItem] = {}
        picture: Image.Image | None = None
        for view in views.values():
            if view.key in made:
                continue
            outputs = keys[view.key]
            vectors = {out: found[key] for out, key in outputs.items() if _fits(found.get(key), widths[out])}
            if len(vectors) == len(outputs):
                made[view.key] = ImageItem(space, outputs, vectors, None)
            else:
                picture = picture or self._picture(data, exact)
                made[view.key] = ImageItem(space, outputs, vectors, self.encoder.preprocess(view.make(picture)))
        return {name: made[view.key] for name, view in views.items()}

    def encode(self, items: Sequence[ImageItem], *, backbone: bool = False) -> ImageFeatures:
        """Features of prepared images, in order; `backbone` as in `prepare_image`. The model runs for misses only."""
        waiting = {item.keys[JOINT]: item for item in items if item.pixels is not None}  # equal images once
        fresh: dict[bytes, dict[str, np.ndarray]] = {}
        for some in _batches(list(waiting.values()), self.encoder.batch_size):
            batch = [item.pixels for item in some if item.pixels is not None]
            joint, behind = self.encoder.encode_images(batch, backbone=backbone)
            computed = {JOINT: joint} | ({BACKBONE: behind} if backbone and behind is not None else {})
            for output, rows in computed.items():
                self._keep(((item.space, item.keys[output], row) for item, row in zip(some, rows, strict=True)), output)
            for row, item in enumerate(some):
                fresh[item.keys[JOINT]] = {output: rows[row] for output, rows in computed.items()}
        vectors = [item.vectors if item.pixels is None else fresh[item.keys[JOINT]] for item in items]
        joined = {
            output: _stack((v[output] for v in vectors), width) for output, width in self._widths(backbone).items()
        }
        return ImageFeatures(joined[JOINT], joined.get(BACKBONE))

    def stored_text(self, record: Record, text: str) -> np.ndarray | None:
        """The caption's unit features f32 [d] by id, where the feature store holds them, and of this very caption."""
        if self._store is None or record.id is None:
            return None
        with self._lock:
            return self._store.caption_features(record.id, text)

    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        """Unit features f32 [n, d] of texts, through the cache; texts that the model cuts are counted in `notices`."""
        self.encoder.require("text")
        self._count_cut(texts)
        space = self.encoder.space
        keys = [text_key(text, space) for text in texts]
        width = self.encoder.identity.dim
        known = {key: row for key, row in self._cache.get_many(keys).items() if _fits(row, width)}
        missing = {key: text for key, text in zip(keys, texts, strict=True) if key not in known}
        for some in _batches(list(missing.items()), _TEXTS_AT_ONCE):
            rows = self.encoder.encode_texts([text for _, text in some])
            fresh = {key: row for (key, _), row in zip(some, rows, strict=True)}
            self._keep(((space, key, row) for key, row in fresh.items()), "text")
            known |= fresh
        return _stack((known[key] for key in keys), width)

    def close(self) -> None:
        """Write what the cache has gathered and release the model."""
        self._cache.close()
        self.encoder.close()

    def _widths(self, backbone: bool) -> dict[str, int]:
        """The outputs asked for and their dimensions. Raises ClipkitError where the model lacks one."""
        widths = {JOINT: self.encoder.identity.dim}
        if backbone:
            if self.encoder.backbone_dim is None:
                raise ClipkitError(f"{self.encoder.identity.name} has no backbone features")
            widths[BACKBONE] = self.encoder.backbone_dim
        return widths

    def _content(self, data: bytes) -> bytes:
        """What stands for an image's bytes in a key."""
        # without a cache nobody compares contents: a number of its own is key enough
        return next(self._numbers).to_bytes(8) if self._cache.off else hashlib.sha256(data).digest()

    def _pixels(self, data: bytes) -> np.ndarray:
        return self.encoder.preprocess(self._picture(data))

    def _picture(self, data: bytes, exact: Image.Image | None = None) -> Image.Image:
        """An image as the model's preprocessing takes it: a large JPEG at reduced scale, unless that is off."""
        from clipkit.images.decode import decode, reduces

        if exact is not None and not reduces(data, exact.size, self._fit):
            return exact
        return decode(data, fit=self._fit)

    def _keep(self, rows: Iterable[tuple[str, bytes, np.ndarray]], output: str) -> None:
        """Cache rows by (space, key), unless the space changed meanwhile (batches halved after out-of-memory)."""
        now = self.encoder.space
        self._cache.put_many(
            {key: row for space, key, row in rows if space == now}, f"{self.encoder.identity} {output}"
        )

    def _count_cut(self, texts: Iterable[str]) -> None:
        limit = self.encoder.context_length
        # A token stands for a byte at least: most texts need not be tokenized to know that they fit.
        long = [text for text in texts if len(text.encode("utf-8", "replace")) > limit - 2]
        if long:
            cut = sum(tokens > limit for tokens in self.encoder.count_tokens(long))
            with self._lock:
                self._cut += cut


def open_embedder(
    config: dict[str, Any], runtime: dict[str, Any], attach: Callable[[Encoder], Encoder] | None = None
) -> Embedder:
    """The embedder that a stage describes. Of both, all but `model` may be absent.

    config: model, device, precision, batch_size, exact_decode; features: a store's folder, instead of the images.
    runtime: root, confine, remote, cache (a folder, or None for off), cache_bytes, quiet (no word about a bad cache).
    attach: makes of the model that was loaded the one to embed with, or refuses it.
    Raises ClipkitError for a model that cannot be loaded.
    """
    from clipkit.images.opener import Opener
    from clipkit.models.load import load

    encoder = load(
        config["model"], device=config.get("device") or "auto", precision=config.get("precision") or "auto", threads=1
    )
    if attach:
        encoder = attach(encoder)
    if config.get("batch_size"):
        encoder.batch_size = config["batch_size"]
    opener = Opener(
        root=runtime.get("root") or os.environ.get("CLIPKIT_ROOT"),
        confine=runtime.get("confine", False),
        remote=runtime.get("remote", False),
    )
    folder = runtime.get("cache")
    warn = _say_nothing if runtime.get("quiet") else warn_stderr
    cache = Cache.open(Path(folder) if folder else None, runtime.get("cache_bytes", 0), warn=warn)
    store = _open_store(config["features"], encoder) if config.get("features") else None
    return Embedder(encoder, opener, cache, exact_decode=config.get("exact_decode", False), store=store)


def _say_nothing(message: str) -> None:
    pass


def _open_store(folder: str, encoder: Encoder) -> Store:
    from clipkit.features.store import Store

    store = Store(folder)
    store.require(encoder.identity)
    store.dim("image")  # says so where it holds texts alone
    return store


def short_side(preprocess: Preprocess) -> int:
    """The short side that a scaled decode must keep, in pixels, so that what follows never enlarges."""
    return max(*preprocess.size, preprocess.resize or 0)


def _fits(row: np.ndarray | None, width: int) -> bool:
    return row is not None and row.shape == (width,)


def _stack(rows: Iterable[np.ndarray], width: int) -> np.ndarray:
    """Rows [d] to f32 [n, d], also for n = 0."""
    return np.array(list(rows), dtype=np.float32).reshape(-1, width)


def _batches(items: list[T], size: int) -> Iterable[list[T]]:
    return (items[start : start + size] for start in range(0, len(items), size))
