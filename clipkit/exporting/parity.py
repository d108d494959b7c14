"""How true an export is to its source, and what it costs beside it."""

from __future__ import annotations

import math
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from clipkit import __version__
from clipkit.exporting import measuring
from clipkit.exporting.base import TOWERS, Job, Limits, Target, Tower, Written, exactly
from clipkit.exporting.measuring import Measured, Subject

if TYPE_CHECKING:
    from clipkit.exporting.running import Export
    from clipkit.exporting.samples import Samples

FORMAT: Final = 1
NEAREST: Final = 10
_DIGITS: Final = 8  # of cosines and shares: equal vectors in f32 have a cosine of 1, as far as f32 can tell
_TIE: Final = 1e-6  # cosines this near are one: f32 can't tell them apart
_SAME_LOGITS: Final = 1e-5  # of the scale, relative: what a float32 in a file may lose
_Z: Final = 1.959963984540054  # of 95 %
_NO_NETWORK: Final = (".json", ".py", ".txt", ".md")
_ROWS: Final = {"image": "image features", "text": "text features", "probabilities": "probabilities"}  # what is near


def report(job: Job, target: Target, asked: Export, samples: Samples, written: Written) -> dict[str, Any]:
    """Measure source and export on the samples, each in a process of its own. Returns JSON for parity.json."""
    before, after = _both(job, target, asked, samples)
    limits = _limits(target, asked)
    encoder = job.source.encoder
    found: dict[str, Any] = {
        "format": FORMAT,
        "kind": "parity",
        "clipkit": __version__,
        "model": {"name": encoder.identity.name, "before": before.identity, "after": after.identity},
        "target": asked.target,
        "towers": list(_towers(job, target)),
        "precision": written.precision,
        "samples": {
            "name": samples.name,
            "pictures": len(samples.pictures),
            "texts": 0 if target.answers else len(samples.texts),
        },
        "figures": figures(before, after, answers=target.answers),
        "costs": _costs(before, after, _source_bytes(job, target), _network_bytes(job.folder)),
        "limits": {"cosine": limits.cosine, "agreement": limits.agreement},
        "facts": dict(written.facts),
        "made_with": _versions(target, encoder.backend),
        "measured_on": {"platform": f"{platform.system()} {platform.machine()}", "cores": 1, "apart": asked.isolate},
    }
    return found | {"passed": not failures(found)}


def failures(report: Mapping[str, Any]) -> list[str]:
    """What is below its limit, in words that name the figure and the limit."""
    limits, found = report["limits"], report["figures"]
    told = [
        f"the least cosine of {what} is {found[name]['cosine_min']:.8g}, below {exactly(limits['cosine'])}"
        for name, what in _ROWS.items()
        if name in found and not found[name]["cosine_min"] >= limits["cosine"]
    ]
    if "agreement" in found and not found["agreement"]["value"] >= limits["agreement"]:
        same = found["agreement"]
        told.append(
            f"the agreement is {same['value']:.6g} of {same['n']} pictures, below {exactly(limits['agreement'])}"
        )
    logits = (name for name in ("logit_scale", "logit_bias") if name in found and not found[name]["same"])
    return told + [f"the {name.replace('_', ' ')} is {found[name]['new']}, not {found[name]['old']}" for name in logits]


def figures(before: Measured, after: Measured, *, answers: bool = False) -> dict[str, Any]:
    """How near the rows of an export are to its source's.

    For each tower it has: the least and the mean cosine of a sample's rows before and after, and the largest absolute
    difference of a value. agreement: the share of pictures whose first text is the same, of which texts within 1e-6 of
    the best are one, with Wilson's interval (1927) of 95 %. recall: mean share of the 10 nearest that are the same.
    Where the export has one tower alone, the source's other one stands beside it; where there is none, `neighbours`
    are those among the samples themselves. answers: rows are the probabilities of labels: they stand under that name,
    and agreement is about the first label.
    """
    with np.errstate(invalid="ignore"):  # what isn't finite is found to be far
        return _figures(before, after, answers)


def _figures(before: Measured, after: Measured, answers: bool) -> dict[str, Any]:
    if answers:
        pair = before.rows["image"], after.rows["image"]
        return {"probabilities": _near(*pair), "agreement": _agreement(*pair)}
    found: dict[str, Any] = {
        tower: _near(before.rows[tower], rows) for tower, rows in sorted(after.rows.items()) if tower in before.rows
    }
    if set(TOWERS) <= before.rows.keys():
        old, new = before.rows, {**before.rows, **after.rows}
        was, now = (rows["image"].astype(np.float64) @ rows["text"].T.astype(np.float64) for rows in (old, new))
        found["agreement"] = _agreement(was, now)
        found["recall"] = {"k": NEAREST, "texts": _overlap(was, now), "pictures": _overlap(was.T, now.T)}
    else:
        tower = next(iter(after.rows))
        was, now = (_among(rows[tower].astype(np.float64)) for rows in (before.rows, after.rows))
        found["neighbours"] = {"k": NEAREST, tower: _overlap(was, now)}
    for name, old_value, new_value in (
        ("logit_scale", before.scale, after.scale),
        ("logit_bias", before.bias, after.bias),
    ):
        found[name] = {"old": old_value, "new": new_value, "same": _same(old_value, new_value)}
    return found


def wilson(share: float, n: int) -> tuple[float, float]:
    """Wilson's score interval (1927) of a proportion, 95 %."""
    middle, spread = share + _Z**2 / (2 * n), _Z * math.sqrt(share * (1 - share) / n + _Z**2 / (4 * n * n))
    return max(0.0, (middle - spread) / (1 + _Z**2 / n)), min(1.0, (middle + spread) / (1 + _Z**2 / n))


def _both(job: Job, target: Target, asked: Export, samples: Samples) -> tuple[Measured, Measured]:
    towers = _towers(job, target)
    have = getattr(job.source.encoder, "towers", TOWERS)
    also = () if target.answers else tuple(tower for tower in have if tower not in towers)
    if not asked.isolate:
        source = job.source
        before = measuring.measure(lambda: target.reference(source.encoder, source.saved), samples, towers, also)
        return before, measuring.measure(lambda: target.open(job.folder), samples, towers)
    stored = measuring.save(samples, job.scratch / "samples")
    subject = Subject(asked.model, asked.target, job.wish, towers=towers, also=also)
    job.tell("measuring the model")
    before = measuring.measure_apart(subject, stored, job.scratch)
    job.tell("measuring the export")
    export = Subject(asked.model, asked.target, job.wish, str(job.folder), towers)
    return before, measuring.measure_apart(export, stored, job.scratch)


def _towers(job: Job, target: Target) -> tuple[Tower, ...]:
    return ("image",) if target.answers else job.wish.towers


def _limits(target: Target, asked: Export) -> Limits:
    own = target.limits
    return Limits(
        own.cosine if asked.min_cosine is None else asked.min_cosine,
        own.agreement if asked.min_agreement is None else asked.min_agreement,
    )


def _near(before: np.ndarray, after: np.ndarray) -> dict[str, float | None]:
    old, new = before.astype(np.float64), after.astype(np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        cosines = (old * new).sum(axis=1) / np.sqrt((old * old).sum(axis=1) * (new * new).sum(axis=1))
    cosines = np.where(np.isfinite(cosines), cosines, -1.0)
    difference = float(np.abs(old - new).max())
    return {
        "cosine_min": round(float(cosines.min()), _DIGITS),
        "cosine_mean": round(float(cosines.mean()), _DIGITS),
        "largest_difference": float(f"{difference:.4g}") if math.isfinite(difference) else None,
    }


def _agreement(was: np.ndarray, now: np.ndarray) -> dict[str, Any]:
    """Of rows of scores [n, m]: how often the best one afterwards was a best one before."""
    chosen = was[np.arange(len(was)), now.argmax(axis=1)]
    share = float((chosen >= was.max(axis=1) - _TIE).mean())
    low, high = wilson(share, len(was))
    return {"value": round(share, _DIGITS), "low": round(low, 4), "high": round(high, 4), "n": len(was)}


def _overlap(was: np.ndarray, now: np.ndarray) -> float:
    """Of rows of scores [n, m]: the mean share of the best 10 afterwards that were among the best 10 before."""
    k = min(NEAREST, was.shape[1])
    last = np.sort(was, axis=1)[:, -k]
    best = np.argsort(-now, axis=1, kind="stable")[:, :k]
    return round(float((np.take_along_axis(was, best, axis=1) >= last[:, None] - _TIE).mean()), _DIGITS)


def _among(rows: np.ndarray) -> np.ndarray:
    """Cosines among rows, each without itself."""
    scores: np.ndarray = rows @ rows.T
    np.fill_diagonal(scores, -np.inf)
    return scores


def _same(old: float | None, new: float | None) -> bool:
    if old is None or new is None:
        return old is new
    return math.isclose(old, new, rel_tol=_SAME_LOGITS, abs_tol=_SAME_LOGITS)


def _costs(before: Measured, after: Measured, old_bytes: int, new_bytes: int) -> dict[str, Any]:
    pairs = {"bytes": (float(old_bytes), float(new_bytes))}
    pairs |= {name: (before.costs[name], after.costs[name]) for name in after.costs if name in before.costs}
    return {
        name: {"old": _rounded(old), "new": _rounded(new), "ratio": _rounded(new / old)}
        for name, (old, new) in pairs.items()
    }


def _rounded(value: float) -> float | int:
    """Four digits: times know no more."""
    return int(value) if abs(value) >= 1e4 else float(f"{value:.4g}")


def _source_bytes(job: Job, target: Target) -> int:
    """Of the source's weights in f32: the towers that were exported."""
    source, towers = job.source, _towers(job, target)
    if source.encoder.backend != "open_clip":
        return sum(source.graph(tower).stat().st_size for tower in towers)
    model: Any = source.encoder.module()  # type: ignore[attr-defined]
    count = {"image": _parameters(model.visual)}
    count["text"] = _parameters(model) - count["image"] - _parameters(getattr(model, "text_decoder", None))
    return 4 * sum(count[tower] for tower in towers)


def _parameters(module: Any) -> int:
    return sum(value.numel() for value in module.parameters()) if module is not None else 0


def _network_bytes(folder: Path) -> int:
    """Of all that is no description."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return sum(path.stat().st_size for path in files if path.suffix not in _NO_NETWORK)


def _versions(target: Target, backend: str) -> dict[str, str]:
    found = {}
    torch: Sequence[str] = ("torch", "open_clip_torch") if backend == "open_clip" else ()
    for name in sorted({*target.packages, *torch}):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
