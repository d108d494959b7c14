"""The flags that mean the same in every verb, declared once, in groups.

A verb takes a whole group as one parameter: `def run(io: StreamOptions, model: ModelOptions, ...)`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, TypeAlias

from typer import Argument, Option

from clipkit import config
from clipkit.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class OptionGroup:
    """The base of the groups: frozen dataclasses, a flag a field: `name: Annotated[type, Option(...)] = default`."""

    title: ClassVar[str]  # its heading in --help


class Shard(NamedTuple):
    """Part `part` of `parts`, counted from 1."""

    part: int
    parts: int


def parse_shard(text: str) -> Shard:
    """`3/8` to Shard(3, 8)."""
    part, slash, parts = text.partition("/")
    if slash and part.isdecimal() and parts.isdecimal() and 1 <= int(part) <= int(parts):
        return Shard(int(part), int(parts))
    raise UsageError(f"--shard takes I/N with I from 1 to N, not {text!r}", "for example: --shard 1/8")


def parse_map(text: str) -> dict[str, str]:
    """`image=filepath,text=title` to {"image": "filepath", "text": "title"}: a record's name, and the input's name."""
    names: dict[str, str] = {}
    for part in text.split(","):
        name, equals, column = (piece.strip() for piece in part.partition("="))
        if not (name and equals and column):
            raise UsageError(f"--map takes NAME=COLUMN, not {part!r}", "for example: --map image=filepath,text=title")
        if name in names or column in names.values():
            raise UsageError(f"--map names {name if name in names else column!r} twice")
        names[name] = column
    return names


def parse_out(text: str) -> str:
    """A name for standard output is `-`: opened by that name, a file that it goes to would be replaced."""
    return "-" if text in ("/dev/stdout", "/dev/fd/1", "/proc/self/fd/1") else text


_Root: TypeAlias = Annotated[str | None, Option(metavar="DIR", help="Where relative image paths start.")]
_Map: TypeAlias = Annotated[
    dict[str, str] | None,
    Option(parser=parse_map, metavar="NAME=COLUMN,...", help="Names of the input's fields: image=filepath."),
]
_LabelFrom: TypeAlias = Annotated[Literal["folder"] | None, Option(help="Take the label from the folder's name.")]


@dataclass(frozen=True, kw_only=True)
class InputOptions(OptionGroup):
    """What a verb reads; on its own for those that write no records."""

    title: ClassVar[str] = "Input"

    sources: Annotated[
        list[str],
        Argument(
            metavar="[SOURCE]...",
            help="Images, folders, .jsonl, .csv, .tsv, .parquet or .tar files; none or - is standard input.",
        ),
    ] = field(default_factory=list)
    root: _Root = None
    map: _Map = None
    label_from: _LabelFrom = None
    null: Annotated[bool, Option("-0", "--null", help="References on standard input end in NUL, not newline.")] = False
    dup_ids: Annotated[
        Literal["error", "suffix"], Option(help="Two records of one id: the second fails, or gets a number.")
    ] = "error"
    limit: Annotated[int | None, Option(min=0, metavar="N", help="Read at most N records.")] = None
    shard: Annotated[Shard | None, Option(parser=parse_shard, metavar="I/N", help="Do part I of N.")] = None
    quiet: Annotated[
        bool, Option("-q", "--quiet", help="No notices, no progress, and no summary unless records failed.")
    ] = False


@dataclass(frozen=True, kw_only=True)
class OutputOptions(OptionGroup):
    """What a verb writes, and what happens to a record that fails; on its own for those that read no records."""

    title: ClassVar[str] = "Output"

    out: Annotated[
        str | None,
        Option("-o", "--out", parser=parse_out, metavar="FILE", help="Write here, under this name only when complete."),
    ] = None
    json: Annotated[bool, Option("--json", help="Records, also on a terminal.")] = False
    on_error: Annotated[
        Literal["fail", "skip", "keep"] | None,
        Option(
            help="A record that fails: stop, leave it out, or keep it with its error. "
            "Default: keep where images are read, else fail."
        ),
    ] = None
    rejects: Annotated[str | None, Option(metavar="FILE", help="Write records that failed here.")] = None
    resume: Annotated[bool, Option("--resume", help="Go on where an earlier run with this -o stopped.")] = False
    restart: Annotated[bool, Option("--restart", help="Forget the earlier run with this -o.")] = False
    retry_failed: Annotated[bool, Option("--retry-failed", help="With --resume: try what failed before again.")] = False
    report: Annotated[str | None, Option(metavar="FILE", help="Write the counts here, as JSON.")] = None
    workers: Annotated[int | None, Option(min=1, metavar="N", help="Threads. Default: one a core.")] = None
    lenient: Annotated[bool, Option("--lenient", help="Exit 0 even if some records failed.")] = False
    exit_status: Annotated[bool, Option("-e", "--exit-status", help="Exit 4 if no record is left.")] = False


@dataclass(frozen=True, kw_only=True)
class StreamOptions(OutputOptions, InputOptions):
    """What a verb reads and writes, and what happens to a record that fails."""

    title: ClassVar[str] = "Input and output"


@dataclass(frozen=True, kw_only=True)
class ImageOptions(OptionGroup):
    """How references to images are opened."""

    title: ClassVar[str] = "Images"

    remote: Annotated[bool, Option("--remote", help="Open https:// and http:// images too.")] = False
    confine: Annotated[bool, Option("--confine", help="Refuse images outside --root.")] = False
    exact_decode: Annotated[
        bool, Option("--exact-decode", help="Decode large JPEGs at full size: slower, not visibly better.")
    ] = False


_Device: TypeAlias = Annotated[str | None, Option(metavar="NAME", help="cuda, cuda:1, mps or cpu. Default: the best.")]
_Precision: TypeAlias = Annotated[
    Literal["f32", "bf16", "f16"] | None, Option(help="Of the weights. Default: f32 on cpu, 16 bits on a GPU.")
]
_BatchSize: TypeAlias = Annotated[
    int | None, Option(min=1, metavar="N", help="Images a model call takes. Default: the model's.")
]
_NoCache: TypeAlias = Annotated[bool, Option("--no-cache", help="Neither read nor write the feature cache.")]


@dataclass(frozen=True, kw_only=True)
class ModelOptions(OptionGroup):
    """Which model, and where it runs."""

    title: ClassVar[str] = "Model"

    model: Annotated[
        str | None,
        Option(metavar="NAME", help="lite, ARCH:TAG, hf-hub:ORG/NAME, or an exported folder. See `clipkit models`."),
    ] = None
    device: _Device = None
    precision: _Precision = None
    batch_size: _BatchSize = None
    no_cache: _NoCache = False

    @property
    def name(self) -> str:
        """The model asked for, by flag or by default."""
        return str(config.setting("model", self.model).value)

    @property
    def device_name(self) -> str:
        """The device asked for, by flag or by default; `auto` leaves the choice to the model's loader."""
        return str(config.setting("device", self.device).value)


@dataclass(frozen=True, kw_only=True)
class ModelsOptions(OptionGroup):
    """Which models, for verbs that go over several, and where they run."""

    title: ClassVar[str] = "Model"

    model: Annotated[
        list[str] | None,
        Option(metavar="NAME", help="As elsewhere; may be repeated: a run for each, and -o is a folder then."),
    ] = None
    device: _Device = None
    precision: _Precision = None
    batch_size: _BatchSize = None
    no_cache: _NoCache = False

    def each(self) -> list[ModelOptions]:
        """The options of each run, one at least."""
        same = {name: getattr(self, name) for name in ("device", "precision", "batch_size", "no_cache")}
        return [ModelOptions(model=name, **same) for name in dict.fromkeys(self.model or ())] or [ModelOptions(**same)]


class Price(NamedTuple):
    """Of a million tokens sent, and of a million answered."""

    tokens_in: float
    tokens_out: float


def parse_price(text: str) -> Price:
    """`0.15,0.6` to Price(0.15, 0.6)."""
    try:
        prices = [float(part) for part in text.split(",")]
    except ValueError:
        prices = []
    if len(prices) != 2 or not all(0 <= price < float("inf") for price in prices):
        raise UsageError(f"--price takes IN,OUT, of a million tokens each, not {text!r}", "for example: 0.15,0.6")
    return Price(*prices)


@dataclass(frozen=True, kw_only=True)
class ServerOptions(OptionGroup):
    """The language model's server, and what may be asked of it. Defaults are those of `clipkit.chat`."""

    title: ClassVar[str] = "Server"

    server: Annotated[
        str | None,
        Option(
            metavar="URL", help="OpenAI-compatible: vLLM, llama.cpp, Ollama; up to /v1, as http://localhost:8000/v1."
        ),
    ] = None
    server_model: Annotated[
        str | None, Option(metavar="NAME", help="As the server calls it. Default: the only one it has.")
    ] = None
    concurrency: Annotated[int | None, Option(min=1, metavar="N", help="Requests at once. Default: 16.")] = None
    timeout: Annotated[
        float | None, Option(min=0.1, metavar="SECONDS", help="For one request and its whole answer. Default: 120.")
    ] = None
    retries: Annotated[
        int | None, Option(min=0, metavar="N", help="Further tries after a failure that may pass. Default: 4.")
    ] = None
    max_tokens_total: Annotated[
        int | None, Option(min=1, metavar="N", help="Stop, to be resumed, when so many tokens are spent.")
    ] = None
    price: Annotated[
        Price | None,
        Option(parser=parse_price, metavar="IN,OUT", help="Of a million tokens sent, and answered: the cost is told."),
    ] = None

    def given(self) -> dict[str, Any]:
        """What was asked for, by the names of the fields."""
        return {name: value for name, value in vars(self).items() if value is not None}


@dataclass(frozen=True, kw_only=True)
class DoubtOptions(OptionGroup):
    """How sure figures are."""

    title: ClassVar[str] = "Figures"

    ci: Annotated[
        float, Option(min=0, max=99.99, metavar="PERCENT", help="How often intervals hold the truth; 0: none are made.")
    ] = 95.0
    resamples: Annotated[int, Option(min=100, metavar="N", help="Of the bootstrap that makes them.")] = 1000
    seed: Annotated[int, Option(min=0, metavar="N", help="Of all that is random.")] = 0


@dataclass(frozen=True, kw_only=True)
class EvalOptions(DoubtOptions):
    """What verbs that measure say of their figures."""

    group: Annotated[str | None, Option(metavar="FIELD", help="Figures of each of its values too, and the worst.")] = (
        None
    )
    split: Annotated[
        str | None, Option(metavar="NAME", help="Measure these alone; all: of each. Default: test, else all.")
    ] = None
    per_sample: Annotated[
        str | None, Option(metavar="FILE", help="Write the records here, each with what was found of it.")
    ] = None
    plot: Annotated[str | None, Option(metavar="FILE", help="Draw a picture: .png, .svg or .pdf.")] = None


# For verbs that can do without the images themselves.
Features: TypeAlias = Annotated[
    str | None, Option(metavar="DIR", help="Take the images' features from a store that `clipkit embed` made, by id.")
]

# How labels are said to a model, and found.
Template: TypeAlias = Annotated[
    list[str] | None,
    Option(metavar="TEXT|NAME|@FILE", help="A prompt with {}, or a set: simple-7, openai-80; may be repeated."),
]
Decision: TypeAlias = Annotated[
    str | None, Option(metavar="NAME", help="How the label is found: see `clipkit methods decisions`.")
]
DecisionSettings: TypeAlias = Annotated[
    list[str] | None, Option("--set", metavar="NAME=VALUE", help="A parameter of the decision; may be repeated.")
]
Context: TypeAlias = Annotated[
    list[str] | None,
    Option(metavar="A|B|...", help="What may surround the object, for the decision contexts; may be repeated."),
]

# For verbs that learn from labelled images, or measure them.
LabelsFound: TypeAlias = Annotated[
    str | None, Option(metavar="A,B,...|@FILE", help="The classes. Default: the labels found, sorted.")
]
Val: TypeAlias = Annotated[
    list[str] | None, Option(metavar="SOURCE", help="Images to choose parameters on; may be repeated.")
]
Test: TypeAlias = Annotated[
    list[str] | None, Option(metavar="SOURCE", help="Images to measure on, and for nothing else; may be repeated.")
]
Space: TypeAlias = Annotated[
    Literal["joint", "backbone"] | None, Option(help="Which image features. Default: those that suit the model.")
]
MeasuredAdapter: TypeAlias = Annotated[str | None, Option(metavar="DIR", help="Measure what train-adapter wrote.")]


@dataclass(frozen=True, kw_only=True)
class HeldOutOptions(OptionGroup):
    """How images that only measure are read, for verbs whose arguments are models."""

    title: ClassVar[str] = "Images to measure on"

    labels: LabelsFound = None
    template: Template = None
    split: Annotated[
        str | None,
        Option(metavar="NAME", help="Take records of this split alone. Default: those of val, and those without one."),
    ] = None
    root: _Root = None
    map: _Map = None
    label_from: _LabelFrom = None
    limit: Annotated[int | None, Option(min=0, metavar="N", help="Read at most N records of each source.")] = None
    on_error: Annotated[
        Literal["fail", "skip", "keep"] | None,
        Option(help="A record that fails: stop, or leave it out. Default: keep, which leaves it out too."),
    ] = None
    rejects: Annotated[str | None, Option(metavar="FILE", help="Write records that failed here.")] = None
    report: Annotated[str | None, Option(metavar="FILE", help="Write the counts here, as JSON.")] = None
    workers: Annotated[int | None, Option(min=1, metavar="N", help="Threads. Default: one a core.")] = None
    lenient: Annotated[bool, Option("--lenient", help="Exit 0 even if some records failed.")] = False
    json: Annotated[bool, Option("--json", help="Records, also on a terminal.")] = False
    quiet: Annotated[bool, Option("-q", "--quiet", help="No notices, no progress, and no summary.")] = False

    def io(self, sources: list[str]) -> StreamOptions:
        """The same as the runner's flags."""
        own = {name: value for name, value in vars(self).items() if name not in ("labels", "template", "split")}
        return StreamOptions(sources=sources, **own)


# How much an adapter counts.
Blend: TypeAlias = Annotated[
    float | None,
    Option(
        min=0, max=1, metavar="A", help="How much the adapter counts: 0 is zero-shot, 1 the adapter. Default: as saved."
    ),
]

# What captions are balanced over.
Metadata: TypeAlias = Annotated[
    list[str] | None,
    Option(metavar="[LANG=]FILE", help="Entries, one a line, or a JSON list; may be repeated for languages."),
]
