"""The flags of `export`: what is made, and what it is held to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from typer import Option

from clipkit.methods import EXPORTERS
from clipkit.options import OptionGroup, Template


def _targets() -> list[tuple[str, str]]:
    return [(entry.name, entry.summary) for entry in EXPORTERS]


@dataclass(frozen=True, kw_only=True)
class ExportOptions(OptionGroup):
    """What is made of which model."""

    title: ClassVar[str] = "What is made"

    model: Annotated[
        str | None, Option(metavar="NAME", help="As elsewhere. Default: the adapter's, else the configured one.")
    ] = None
    adapter: Annotated[
        str | None, Option(metavar="DIR", help="What train-adapter wrote: lora and svd for any target, all for head.")
    ] = None
    to: Annotated[
        str,
        Option(
            metavar="TARGET",
            help=f"{', '.join(EXPORTERS.own)}.",
            autocompletion=_targets,
        ),
    ] = "onnx"
    tower: Annotated[Literal["image", "text"] | None, Option(help="This one alone. Default: both.")] = None
    int8: Annotated[bool, Option("--int8", help="Weights in 8 bits: the first to try, the truest of the three.")] = (
        False
    )
    dynamic: Annotated[
        bool,
        Option(
            "--dynamic",
            help="With --int8: activations too, by the range of each row; for runtimes that lack --int8 alone.",
        ),
    ] = False
    calibrate: Annotated[
        list[str] | None,
        Option(
            metavar="SOURCE",
            help="With --int8: activations too, by their ranges on these; for accelerators. May be repeated.",
        ),
    ] = None
    opset: Annotated[int | None, Option(min=1, metavar="N", help="Of ONNX. Default: what runs everywhere.")] = None
    external_data: Annotated[bool, Option("--external-data", help="Weights in a file beside the graph.")] = False
    embed_preprocessing: Annotated[
        bool, Option("--embed-preprocessing", help="Into the graph: raw pixels in, of any size.")
    ] = False
    labels: Annotated[str | None, Option(metavar="A,B,...|@FILE", help="With --to head: what it tells apart.")] = None
    template: Template = None


@dataclass(frozen=True, kw_only=True)
class ParityOptions(OptionGroup):
    """What it is held to."""

    title: ClassVar[str] = "What it is held to"

    samples: Annotated[
        list[str] | None,
        Option(
            metavar="SOURCE",
            help="Pictures, with or without captions; may be repeated. Default: views of three photos that come along.",
        ),
    ] = None
    min_cosine: Annotated[
        float | None,
        Option(
            min=0,
            max=1,
            metavar="C",
            help="The least cosine of a sample before and after. Default: the target's (clipkit methods exporters).",
        ),
    ] = None
    min_agreement: Annotated[
        float | None,
        Option(
            min=0,
            max=1,
            metavar="P",
            help="Of pictures, with the same first text. Default: the target's (clipkit methods exporters).",
        ),
    ] = None
