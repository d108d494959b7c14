"""How large a picture is, from its header; nothing is decoded."""

from __future__ import annotations

from typing import Any, ClassVar

from clipkit.images.decode import probe
from clipkit.methods.scorers.base import DATA, Sample, Scorer


class Size(Scorer):
    """`width` and `height` in pixels, after EXIF orientation, and `bytes` of the encoded file.

    Raises RecordError as `probe` does.
    """

    name: ClassVar[str] = "size"
    needs: ClassVar[frozenset[str]] = frozenset({DATA})
    outputs: tuple[str, ...] = ("width", "height", "bytes")

    def look(self, sample: Sample) -> dict[str, Any]:
        assert sample.data is not None
        found = probe(sample.data)
        return {"width": found.width, "height": found.height, "bytes": len(sample.data)}

    def score(self, sample: Sample, looked: Any) -> dict[str, Any]:
        return dict(looked)


class Aspect(Scorer):
    """`scores.aspect`: the longer side over the shorter, at least 1, however the picture is turned.

    DataComp's basic filter keeps `scores.aspect <= 3`. Raises RecordError as `probe` does.
    """

    name: ClassVar[str] = "aspect"
    needs: ClassVar[frozenset[str]] = frozenset({DATA})
    outputs: tuple[str, ...] = ("scores.aspect",)

    def look(self, sample: Sample) -> float:
        assert sample.data is not None
        found = probe(sample.data)
        return max(found.width, found.height) / min(found.width, found.height)

    def score(self, sample: Sample, looked: Any) -> dict[str, Any]:
        return {"scores.aspect": round(looked, 6)}
