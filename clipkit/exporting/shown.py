"""What a person sees of a parity report: two tables."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, TextIO

from clipkit.exporting.base import exactly
from clipkit.stream.record import Record, encode_json
from clipkit.stream.table import Column, TableSink, display_width
from clipkit.terminal import printable

_COSTS: Final = {
    "bytes": "weights, MB",
    "load_s": "first answers, s",
    "image_ms": "one picture, ms",
    "images_per_s": "pictures/s",
    "text_ms": "one text, ms",
    "texts_per_s": "texts/s",
    "memory_mb": "peak memory, MB",
}


def write(report: Mapping[str, Any], out: str, *, as_json: bool) -> None:
    """The report on standard output: JSON, or tables on a terminal."""
    if as_json or not sys.stdout.isatty():
        print(encode_json(report).decode())
        return
    model = report["model"]
    print(printable(f"{out}: {model['name']}@{model['after']} as {report['target']}, {report['precision']}"))
    print()
    tables(report, sys.stdout)


def tables(report: Mapping[str, Any], stream: TextIO) -> None:
    """How true it is, and what it costs."""
    samples = report["samples"]
    texts = f" and {samples['texts']:,} texts" if samples["texts"] else ""
    print(printable(f"{samples['pictures']:,} pictures{texts} ({samples['name']})"), file=stream)
    _table(("figure", "value", "at least"), list(_figures(report)), stream)
    print(file=stream)
    print("costs, measured on one core; what else the machine does shows in the times", file=stream)
    _table(("cost", "before", "after", "after/before"), list(_costs(report)), stream)


def _figures(report: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    found, limits = report["figures"], report["limits"]
    for tower, what in (("image", "pictures"), ("text", "texts"), ("probabilities", "probabilities")):
        if tower in found:
            near = found[tower]
            least = exactly(limits["cosine"])
            digits = 6 if len(least) <= len("0.9999") else 8  # that the report has
            yield f"cosine of {what}, least", f"{near['cosine_min']:.{digits}f}", least
            yield f"cosine of {what}, mean", f"{near['cosine_mean']:.6f}", ""
            if near["largest_difference"] is not None:
                yield f"difference of {what}, largest", f"{near['largest_difference']:.2g}", ""
    if "agreement" in found:
        same = found["agreement"]
        interval = f"{same['low']:.3f} to {same['high']:.3f}"
        yield f"same first answer ({interval})", f"{same['value']:.4f}", exactly(limits["agreement"])
    if "recall" in found:
        for what in ("texts", "pictures"):
            yield f"same nearest {found['recall']['k']} {what}", f"{found['recall'][what]:.4f}", ""
    if "neighbours" in found:
        (tower,) = found["neighbours"].keys() - {"k"}
        yield f"same nearest {found['neighbours']['k']} {tower}s", f"{found['neighbours'][tower]:.4f}", ""


def _costs(report: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    for name, head in _COSTS.items():
        if pair := report["costs"].get(name):
            scale = 1e6 if name == "bytes" else 1
            yield head, f"{pair['old'] / scale:,.4g}", f"{pair['new'] / scale:,.4g}", f"{pair['ratio']:.2f}"


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]], stream: TextIO) -> None:
    columns = []
    for number, head in enumerate(heads):
        width = max(display_width(row[number]) for row in (heads, *rows))
        columns.append(Column(head, width, lambda record, head=head: str(record.get(head)), right=number > 0))  # type: ignore[misc]
    sink = TableSink(columns, stream)
    for row in rows:
        sink.write(Record(dict(zip(heads, row, strict=True))).encode(), "")
    sink.flush()
