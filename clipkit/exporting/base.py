"""The seam of a target: what it is asked, what it writes, and how what it wrote is opened."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from clipkit.errors import ClipkitError, UsageError

if TYPE_CHECKING:
    from clipkit.exporting.samples import Samples
    from clipkit.exporting.source import Source
    from clipkit.methods.adapters.files import Saved
    from clipkit.models.base import Encoder

Tower = Literal["image", "text"]
TOWERS: tuple[Tower, ...] = ("image", "text")
Int8 = Literal["weights", "dynamic", "static"]


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What is asked of a target, as the flags say it. A target refuses in `check` what it cannot do.

    int8: 8-bit weights alone, activations too by the range of each row, or by ranges that were measured on samples.
    opset: of ONNX; None leaves it to us. external_data: weights in a file of their own beside the graph.
    embed_preprocessing: the network takes raw pixels. labels, templates: of a head that no adapter gives.
    """

    towers: tuple[Tower, ...] = TOWERS
    int8: Int8 | None = None
    opset: int | None = None
    external_data: bool = False
    embed_preprocessing: bool = False
    adapter: str | None = None
    labels: str | None = None
    templates: tuple[str, ...] = ()


@dataclass(frozen=True)
class Limits:
    """Below these an export is not believed (`--min-cosine`, `--min-agreement`).

    cosine: the least of the cosines between a sample's features before and after. agreement: share of samples whose
    first answer is the same.
    """

    cosine: float
    agreement: float


@dataclass(frozen=True)
class Written:
    """What a target made, for the manifest.

    precision: what the numbers are computed in. same_weights: the networks hold the source's weights, bit for bit or
    as another layout of them: then the source's identity is theirs. row_independent: a row's result doesn't depend on
    its batch. more: of the manifest besides. facts: of the report besides (opset, outliers, ...), as JSON.
    """

    precision: str = "f32"
    same_weights: bool = True
    row_independent: bool = True
    more: Mapping[str, Any] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Job:
    """One export. folder: fresh, and the target's to write into. scratch: for what is thrown away.

    samples: real pictures and texts (`--calibrate`, else those of the report). tell: a line for whoever waits.
    """

    source: Source
    wish: Wish
    folder: Path
    scratch: Path
    samples: Callable[[], Samples]
    tell: Callable[[str], None]


class Target:
    """A form in which models ship. Adding one is a file in `targets/` and its line in `clipkit.methods.EXPORTERS`.

    takes: the wishes besides `towers` that it can fulfil. packages: what must be importable, and how to install it.
    runtime: who runs the networks (`clipkit.models.exported.RUNTIMES`): then the folder gets a clipkit.json and run.py,
    and is a model of clipkit's. "" where it is something else (a hub folder, a head).
    answers: what `open` gives are no features but probabilities of fixed labels, by `encode_images`; `reference` too.
    """

    takes: ClassVar[frozenset[str]] = frozenset()
    packages: ClassVar[Mapping[str, str]] = {}
    runtime: ClassVar[str] = ""
    answers: ClassVar[bool] = False

    def __init__(self, wish: Wish) -> None:
        """Raises UsageError for a wish that this target cannot fulfil, MissingPackage, or ClipkitError where the
        platform cannot make or check it. Imports nothing heavy."""
        self.wish = wish
        self.check()

    @classmethod
    def limits_of(cls, wish: Wish) -> Limits:
        """What an export of this wish is held to where the user says nothing."""
        return Limits(0.9999, 0.99)

    @property
    def limits(self) -> Limits:
        return self.limits_of(self.wish)

    def check(self) -> None:
        """See `__init__`; a subclass adds to it."""
        from importlib.util import find_spec

        from clipkit.errors import MissingPackage

        plain = Wish()
        for name in ("int8", "opset", "external_data", "embed_preprocessing", "labels"):
            if getattr(self.wish, name) != getattr(plain, name) and name not in self.takes:
                raise self._refusal(name)
        for package, install in self.packages.items():
            if find_spec(package) is None:
                raise MissingPackage(package, _asked(type(self)), install)

    def write(self, job: Job) -> Written:
        """Write the networks into `job.folder`. Raises ClipkitError where the model cannot be had in this form."""
        raise NotImplementedError

    def open(self, folder: Path) -> Encoder:
        """What was written, as an encoder on one core; where it stands in a process of its own, to be measured."""
        from clipkit.models import exported

        return exported.load(folder)

    def reference(self, encoder: Encoder, saved: Saved | None) -> Encoder:
        """What the export is held to, in a process of its own: the source itself, with its adapter's weights in it.

        saved: the adapter, as `open_encoder` gives it. A target that answers gives the same answers by the source.
        """
        return encoder

    @classmethod
    def describe(cls) -> dict[str, Any]:
        """What there is to know of the target, as JSON: `takes` as in the class, and the same as flags."""
        about, takes = " ".join((cls.__doc__ or "").split()), sorted(cls.takes)
        said = {
            "about": about,
            "takes": takes,
            "flags": ", ".join(map(_flag, takes)),
            "needs": ", ".join(sorted(cls.packages)),
            "limits": _said(cls.limits_of(Wish())),
        }
        kinds: tuple[Int8, ...] = ("weights", "dynamic", "static") if "int8" in cls.takes else ()
        names = {"weights": "--int8", "dynamic": "--int8 --dynamic", "static": "--int8 --calibrate"}
        return said | {f"limits, {names[kind]}": _said(cls.limits_of(Wish(int8=kind))) for kind in kinds}

    def _refusal(self, name: str) -> UsageError:
        """For a wish that this target doesn't take: those that do."""
        from clipkit.methods import EXPORTERS

        able = [known for known, target in _targets() if name in target.takes]
        do = f": {' and '.join(able)} {'do' if len(able) > 1 else 'does'}" if able else ""
        return UsageError(f"{_asked(type(self))} takes no {_flag(name)}{do}", f"see: clipkit methods {EXPORTERS.kind}")


def _targets() -> Iterator[tuple[str, type[Target]]]:
    """All targets, as they are listed, but for those of other packages that cannot be loaded."""
    from clipkit.methods import EXPORTERS

    for entry in EXPORTERS:
        with suppress(ClipkitError):
            yield entry.name, EXPORTERS.get(entry.name)


def _asked(target: type[Target]) -> str:
    """How a target is asked for."""
    return next((f"--to {name}" for name, known in _targets() if known is target), "this target")


def _flag(wish: str) -> str:
    return f"--{wish.replace('_', '-')}"


def _said(limits: Limits) -> str:
    return f"least cosine {exactly(limits.cosine)}, agreement {exactly(limits.agreement)}"


def exactly(limit: float) -> str:
    """A limit as it was given: 0.9999999 is not 1."""
    return f"{limit:.15g}"
