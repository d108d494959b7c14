"""How alike image and caption are once the text in the image is gone (T-MARS)."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final

import numpy as np
from PIL import Image, ImageDraw

from clipkit.errors import MissingPackage
from clipkit.features.views import PLAIN, View, edges
from clipkit.methods.scorers.base import PIXELS, TEXT, Sample
from clipkit.methods.scorers.clip import Similarity
from clipkit.models.sessions import open_session

if TYPE_CHECKING:
    from clipkit.features.embedder import Embedder

DETECTOR: Final = "ch_PP-OCRv4_det_infer.onnx"
# Pixels that the detector sees. Of words drawn on photos of 1280 pixels, 28 pixels high, it finds 27 in 30, and 29 with
# 960: a model that sees 224 pixels cannot read these (5 pixels), and 960 costs three times the work and twice as many
# false boxes. Small pictures are enlarged: of 200 words on 40 photos of 320 pixels it finds 196, without that 165.
_LONGEST: Final = 640
_SHORTEST: Final = 384  # unless the long side would be too long
_STEP: Final = 32  # sides must be multiples of it
# What RapidOCR's own configuration gives its box finder.
_BOXES: Final = {
    "thresh": 0.3,
    "box_thresh": 0.5,
    "max_candidates": 1000,
    "unclip_ratio": 1.6,
    "use_dilation": True,
    "score_mode": "fast",
}
_FILLING: Final = 1  # raise it when boxes are filled otherwise
_RING: Final = 0.25  # of a box's height: how far around it colours are looked at


@dataclass(frozen=True, slots=True)
class Text:
    """Where text is. quads: int32 [n, 4, 2], corners (x, y) in pixels of the picture decoded exactly, of this size.

    area: the share of the picture that lies in them, 0 to 1; where they overlap it counts once.
    """

    quads: np.ndarray
    size: tuple[int, int]
    area: float


class TMars(Similarity):
    """`scores.tmars`: cosine of the caption and the image without its text; `scores.text_area`: the share it takes.

    After T-MARS (Maini et al., 2023), who find text with FAST and in-paint it. Here PP-OCRv4's detector finds it, the
    one that the package rapidocr-onnxruntime carries, and each quadrilateral is filled with the mean colour of what
    surrounds it. Text is looked for in the exactly decoded picture, resized to a short side of at least 384 and a long
    side of at most 640 pixels, so that `text_area` is the same with every model; what is masked is the model's own
    view. Where no text is found, `scores.tmars` is `scores.clip`, bit for bit.
    """

    name: ClassVar[str] = "tmars"
    needs: ClassVar[frozenset[str]] = frozenset({PIXELS, TEXT})
    views: ClassVar[tuple[str, ...]] = ("without text",)
    outputs: tuple[str, ...] = ("scores.tmars", "scores.text_area")

    @property
    def identity(self) -> str:
        return f"{self.name}@{self._digest}"

    def maker(self, field: str, model: str) -> str:
        return self.identity if field == "scores.text_area" else super().maker(field, model)

    def setup(self, embedder: Embedder | None) -> None:
        self._detector = Detector()
        told = f"{self._detector.weights} {_LONGEST} {_SHORTEST} {_BOXES} {_FILLING} {_RING}"
        self._digest = hashlib.sha256(told.encode()).hexdigest()[:8]

    def look(self, sample: Sample) -> Text:
        assert sample.pixels is not None
        return self._detector.find(sample.pixels)

    def view(self, name: str, looked: Text) -> View:
        if not len(looked.quads):
            return PLAIN
        digest = hashlib.sha256(f"{_FILLING} {_RING} {looked.size} {looked.quads.tolist()}".encode()).hexdigest()[:16]
        return View(f"masked/{digest}", lambda picture: without(picture, looked))

    def score(self, sample: Sample, looked: Text) -> dict[str, Any]:
        return {**super().score(sample, looked), "scores.text_area": looked.area}


class Detector:
    """PP-OCRv4's text detector (DB: Liao et al., 2020), one core a call, one picture at a time. For several threads.

    Raises MissingPackage where rapidocr-onnxruntime is not installed.
    """

    def __init__(self) -> None:
        try:
            import rapidocr_onnxruntime
            from rapidocr_onnxruntime.ch_ppocr_det.utils import DBPostProcess
        except ImportError:
            raise MissingPackage("rapidocr-onnxruntime", "tmars", "pip install 'clipkit[ocr]'") from None
        path = Path(rapidocr_onnxruntime.__file__).parent / "models" / DETECTOR
        self.weights = hashlib.sha256(path.read_bytes()).hexdigest()
        self._network = open_session(path, 1)
        self._boxes = DBPostProcess(**_BOXES)

    def find(self, picture: Image.Image) -> Text:
        """The text in an upright RGB picture."""
        small = picture.resize(_scaled(picture.size), Image.Resampling.BILINEAR)
        levels = np.asarray(small)[:, :, ::-1].transpose(2, 0, 1)[None]  # it was trained on blue, green, red
        likely = self._network.run(None, {"x": levels.astype(np.float32) / 127.5 - 1})[0]
        found, _ = self._boxes(likely, (picture.height, picture.width))
        quads = np.asarray(found, np.int32).reshape(-1, 4, 2)
        return Text(quads, picture.size, _coverage(quads / picture.size * small.size, small.size))


def without(picture: Image.Image, text: Text) -> Image.Image:
    """A copy of the picture, perhaps one decoded at reduced scale, with its text filled.

    Each quadrilateral gets the mean colour, in whole levels, of the pixels around it that are not text: a ring as wide
    as a quarter of its height; where there are none, of all pixels that are not text, else mid-grey.
    """
    left, top, right, bottom = edges(picture)
    scale = ((right - left) / text.size[0], (bottom - top) / text.size[1])
    quads = text.quads * scale + (left, top)
    covered = np.asarray(_raster(quads, picture.size)) > 0
    levels = np.asarray(picture)
    filled = picture.copy()
    draw = ImageDraw.Draw(filled)
    elsewhere: tuple[int, ...] | None = None
    for quad in quads:
        around = _around(quad, picture.size)
        colour = _mean(levels[around], ~covered[around])
        if colour is None:
            elsewhere = elsewhere or _mean(levels, ~covered) or (128, 128, 128)
            colour = elsewhere
        draw.polygon(_corners(quad), fill=colour)
    return filled


def _scaled(size: tuple[int, int]) -> tuple[int, int]:
    ratio = min(max(1.0, _SHORTEST / min(size)), _LONGEST / max(size))
    width, height = (max(_STEP, round(side * ratio / _STEP) * _STEP) for side in size)
    return width, height


def _coverage(quads: np.ndarray, size: tuple[int, int]) -> float:
    return float(np.count_nonzero(np.asarray(_raster(quads, size)))) / (size[0] * size[1]) if len(quads) else 0.0


def _raster(quads: np.ndarray, size: tuple[int, int]) -> Image.Image:
    """255 in the quadrilaterals, 0 elsewhere."""
    mask = Image.new("L", size)
    draw = ImageDraw.Draw(mask)
    for quad in quads:
        draw.polygon(_corners(quad), fill=255)
    return mask


def _corners(quad: np.ndarray) -> Sequence[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in quad]


def _around(quad: np.ndarray, size: tuple[int, int]) -> tuple[slice, slice]:
    """Rows and columns of the box around a quadrilateral, widened by the ring."""
    sides = np.linalg.norm(quad - np.roll(quad, 1, axis=0), axis=1)
    ring = max(2.0, _RING * float(sides.min()))
    low = np.maximum(np.floor(quad.min(axis=0) - ring), 0).astype(int)
    high = np.minimum(np.ceil(quad.max(axis=0) + ring), size).astype(int)
    return slice(low[1], high[1]), slice(low[0], high[0])


def _mean(levels: np.ndarray, chosen: np.ndarray) -> tuple[int, ...] | None:
    """The mean of the chosen pixels of [h, w, 3], in whole levels; None where none is chosen."""
    picked = levels[chosen]
    return tuple(int(level) for level in np.rint(picked.mean(axis=0, dtype=np.float64))) if len(picked) else None
