"""What a person reads of a few-shot experiment: short plain lines, with the numbers of the report."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from clipkit.methods.adapters import auto
from clipkit.methods.adapters.experiment import Sets, run
from clipkit.methods.adapters.prototypes import Prototypes
from clipkit.stages.adapter_report import lines, rows
from tests.methods.adapters.synthetic import World


def said(classes: int, *, other: bool = False, methods: Any = None) -> dict[str, Any]:
    world = World(classes=classes)
    others = World(classes=3).samples(4) if other else None
    if others is not None:
        others = replace(others, task=replace(others.task, classes=("cow", "hen", "pig")))
    report = run(methods or [Prototypes()], Sets(world.samples(8), None, world.samples(5, prefix="t"), others)).report
    return {"adapter": "my parts.adapter", **report}


def test_of_several_methods_what_decided_between_them() -> None:
    report = said(8, methods=auto.candidates())
    text = " ".join(line.strip() for line in lines(report))
    assert all(len(line) <= 80 for line in lines(report)), lines(report)
    best = min(report["tried"], key=lambda each: each["cross_entropy"])
    assert best["method"] == report["method"]
    assert f"least held-out cross-entropy is kept: {best['method']} {best['cross_entropy']:.3f}, " in text
    assert all(f"{each['method']} {each['cross_entropy']:.3f}" in text for each in report["tried"])


def test_what_it_costs_elsewhere_and_what_blending_back_gives() -> None:
    report = said(8)
    change, blend = report["forgetting"]["together"], report["blend"]
    (point,) = (point for point in blend["curve"] if point["alpha"] == blend["suggested"])
    *_, cost, best, use = lines(report)
    before, after = change["zero_shot"], change["adapted"]
    assert cost == f"other classes: {before:.3f} before, {after:.3f} with it (estimated on half of the classes)"
    on_both = f"{point['target']:.3f} on its own classes, {point['other']:.3f} on others"
    assert best == f"best for both: --blend {point['alpha']:g} ({on_both})"
    assert use == "use it: clipkit apply 'my parts.adapter' SOURCE"


def test_other_images_are_counted_like_all_others() -> None:
    report = said(3, other=True)
    assert f"with it (on {report['forgetting']['images']} images)" in " ".join(lines(report))
    assert list(next(rows(report)))[-1] == "others (12)"


def test_where_it_was_not_measured_the_reason_is_given() -> None:
    told = lines(said(3))
    assert told[-3:-1] == [
        "what it costs on other classes was not measured:",
        "  fewer than 4 classes: give images of other classes",
    ]
    assert all(len(line) <= 80 for line in told)
