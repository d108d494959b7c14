"""Real pictures and texts to hold an export to: the user's, or views of the three photos that the package carries."""

from __future__ import annotations

import heapq
import io
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from clipkit.errors import ClipkitError, RecordError

if TYPE_CHECKING:
    from PIL import Image

    from clipkit.images.opener import Opener
    from clipkit.stream.record import Record
    from clipkit.stream.sources import BadLine

CARRIED: Final = "carried"
MOST: Final = 256  # of the user's own
VIEWS: Final = 16  # of each photo that is carried, the whole one first
_PHOTOS: Final = ("cat.jpg", "coffee.jpg", "rocket.jpg")
_NAMES: Final = ("caltech101", "cifar10")  # of recipes: everyday things
_TEMPLATE: Final = "a photo of a {}."
_SENTENCES: Final = (
    "A cat looks into the camera.",
    "A cup of coffee stands on a wooden table.",
    "A rocket rises from its launch pad at night, in a cloud of smoke and light.",
    "two children playing football in a park on a sunny day",
    "The street was empty, and it had begun to rain.",
    "an old black and white portrait of a man with a hat",
    "Fresh vegetables at a market stall: tomatoes, peppers and herbs.",
    "red",
    "screenshot of a web page with a table of prices",
    "Ein Fahrrad lehnt an einer Mauer.",
    "une tasse de café sur la table",
    "IMG_2041.JPG",
)
_FEW_TEXTS: Final = 32  # with fewer captions the carried texts come along: ranks among five texts say little
_SHORT_SIDE: Final = 512  # pixels that a picture of the user's is kept with: beyond what models look at


@dataclass(frozen=True)
class Samples:
    """pictures: upright RGB, of any size. texts: captions, or labels put into a template. name: for the report."""

    pictures: Sequence[Image.Image]
    texts: Sequence[str]
    name: str


def carried() -> Samples:
    """48 pictures and 123 texts that come with clipkit; always the same."""
    pictures = [view for name in _PHOTOS for view in _views(name)]
    return Samples(pictures, carried_texts(), CARRIED)


def carried_texts() -> list[str]:
    """Names of everyday things in a template, and some sentences."""
    from clipkit.recipes.recipe import recipe
    from clipkit.text.templates import fill

    names = dict.fromkeys(label for name in _NAMES for label in recipe(name).labels() or ())
    return [*(fill(_TEMPLATE, name) for name in names), *_SENTENCES]


def named(
    records: Iterable[Record | BadLine], opener: Opener, name: str, tell: Callable[[str], None], most: int = MOST
) -> Samples:
    """Pictures and captions of records: at most MOST, drawn by hash of the id.

    tell: is told of those that cannot be read. Raises ClipkitError where no picture can.
    """
    from clipkit.stream.captions import captions

    pictures: list[Image.Image] = []
    texts: dict[str, None] = {}
    failed: list[RecordError] = []
    for record in _drawn(records, most, failed):
        try:
            pictures.append(_picture(record, opener))
            texts |= dict.fromkeys(caption.text for caption in captions(record)[:1])
        except RecordError as error:
            failed.append(error)
    if not pictures:
        why = f": {failed[0]}" if failed else ""
        raise ClipkitError(f"no picture of {name} can be read{why}", "an export is held to real pictures")
    if failed:
        tell(f"{len(failed):,} of {name} left out, the first: {failed[0]}")
    if len(texts) < _FEW_TEXTS:
        texts |= dict.fromkeys(carried_texts())
    return Samples(pictures, list(texts), name)


def _drawn(records: Iterable[Record | BadLine], most: int, failed: list[RecordError]) -> list[Record]:
    """The records whose tickets come first, in that order: whatever the order of the input."""
    from clipkit.stream.hashing import name_of, ticket
    from clipkit.stream.sources import BadLine

    def tickets() -> Iterable[tuple[bytes, int, Record]]:
        for number, record in enumerate(records):
            if isinstance(record, BadLine):
                failed.append(record.error)
            else:
                yield ticket(name_of(record), 0, "export"), number, record

    return [record for _, _, record in heapq.nsmallest(most, tickets())]


def _picture(record: Record, opener: Opener) -> Image.Image:
    from clipkit.images.decode import decode
    from clipkit.stream.record import image_of

    picture = decode(opener.read(image_of(record)), limits=opener.limits)
    picture.info = {}
    if min(picture.size) > _SHORT_SIDE:
        scale = _SHORT_SIDE / min(picture.size)
        picture = picture.resize((max(1, round(picture.width * scale)), max(1, round(picture.height * scale))))
    return picture


def _views(name: str) -> Iterable[Image.Image]:
    """A carried photo and crops of it: of several scales, shapes and places, mirrored or not, in its own pixels."""
    from PIL import Image

    from clipkit.features.views import Crop, mirror

    photo = Image.open(io.BytesIO((_folder() / name).read_bytes())).convert("RGB")
    yield photo
    for number in range(1, VIEWS):
        crop = Crop.drawn(name, number, 0, (0.1, 1.0))
        left, top, right, bottom = (round(edge) for edge in crop.box(*photo.size))
        view = photo.crop((left, top, right, bottom))
        yield mirror(view) if crop.mirrored else view


def _folder() -> Path:
    """Where the photos lie: in the installed package, or beside it in a checkout."""
    package = Path(__file__).resolve().parents[1]
    installed = package / "samples"
    return installed if installed.is_dir() else package.parent / "samples"
