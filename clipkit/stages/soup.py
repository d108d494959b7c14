"""Soups that are chosen on held-out images: which models go in (greedy), or how much of each of two (wise)."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Final

import numpy as np

from clipkit.errors import ClipkitError, RecordError
from clipkit.evaluation import plots
from clipkit.evaluation.bootstrap import Doubt
from clipkit.features.embedder import short_side
from clipkit.images.decode import decode
from clipkit.images.opener import Opener
from clipkit.images.transform import frame
from clipkit.soups import card
from clipkit.soups.candidates import Candidates
from clipkit.soups.greedy import Tried, greedy
from clipkit.soups.measuring import Held, HeldOut, Measure, packed
from clipkit.soups.mixing import Terms, mix
from clipkit.soups.recipes import uniform_terms, wise_terms
from clipkit.soups.states import State, state
from clipkit.soups.wise import LOSS, STEPS, Point, alphas, frugal, suggested
from clipkit.stages.eval_retrieval import captions_of
from clipkit.stages.support import TEST, VALIDATION, label_names, no_label, unknown_label
from clipkit.stream.engine import available_cores
from clipkit.stream.record import Record, image_of
from clipkit.stream.sources import Source
from clipkit.stream.sources.by_split import SourcesBySplit
from clipkit.stream.spool import Rows
from clipkit.stream.stage import Drop, Outcome, Row
from clipkit.stream.whole import WholeStage
from clipkit.text.labels import Labels

ROLE: Final = "held_out"  # the field that says which set a record is of
ALL: Final = "all"  # of every split
TARGET: Final = "target"
OTHERS: Final = "others"
_DOUBT: Final = Doubt()


def by_role(sources: Mapping[str, Source]) -> SourcesBySplit:
    """Several sources as one, whose records say which set they are of."""
    return SourcesBySplit(list(sources.items()), ROLE)


class _Souping(WholeStage):
    """Remembers of each record what models see of its picture; a subclass measures mixtures on them.

    config: models: as `soups.states.state` takes them; device; exact_decode; templates ([] = each model's own); labels
    of the first of `roles` (`Labels.to_json`; None: those that are found); split: of the records that are taken, ALL
    for every one, None for those of val and those without a split.
    runtime: root, confine, remote; workers: threads; named: role -> the sources named for it; out: where the soup is
    written, None for nowhere.
    """

    reads: tuple[str, ...] = ("image",)
    roles: ClassVar[tuple[str, ...]] = ()
    defaults: ClassVar[dict[str, Any]] = {
        "models": [],
        "device": "auto",
        "exact_decode": False,
        "labels": None,
        "templates": [],
        "split": None,
    }

    candidates: Candidates

    def __init__(self, config: dict[str, Any], runtime: dict[str, Any] | None = None) -> None:
        super().__init__(config, runtime)
        self._labels = None if self.config["labels"] is None else Labels.from_json(self.config["labels"])
        self._records: list[dict[str, Any]] = []
        self._left: Counter[str] = Counter()
        self._lost: Counter[str] = Counter()
        self._heard: list[str] = []
        self._measured = 0

    @property
    def candidates_in_all(self) -> int:
        """How many mixtures are measured."""
        raise NotImplementedError

    @property
    def summarises(self) -> bool:
        return True

    def setup(self) -> None:
        states = [state(name) for name in self.config["models"]]
        self.candidates = Candidates(states, self.config["device"])
        self.names = _told_apart([one.name for one in states])
        self.preprocess = states[0].outline.identity.preprocess
        self._heard += dict.fromkeys(notice for one in states for notice in one.notices)
        self._opener = Opener.of(self.runtime)
        self._fit = None if self.config["exact_decode"] else short_side(self.preprocess)
        self.item_bytes = 3 * int(np.prod(self.preprocess.size))

    def prepare(self, record: Record) -> Row | Drop:
        split = record.get("split")
        if not self._takes(split):
            return Drop(self.verb, "split", split)
        role = record[ROLE] if ROLE in record and len(self.roles) > 1 else self.roles[0]
        labels = self._said(record, role)
        captions = [] if labels else captions_of(record)
        data = self._opener.read(image_of(record))
        seen = np.asarray(frame(self.preprocess, decode(data, fit=self._fit)))
        name, content = record.id or record.digest.hex(), hashlib.blake2b(data, digest_size=16).digest()
        return Row(packed(Held(role, name, content, labels, captions), seen))

    def process(self, items: list[Any]) -> list[Outcome]:
        return list(items)

    def on_drop(self, record: Record, drop: Drop) -> None:
        self._left[str(drop.value)] += 1

    def lost(self, item: Any, kind: str) -> None:
        self._lost[kind] += 1

    def _takes(self, split: Any) -> bool:
        asked = self.config["split"]
        return asked == ALL or (split in (None, VALIDATION) if asked is None else split == asked)

    def _said(self, record: Record, role: str) -> list[str]:
        """Its labels, [] where it has captions instead. Raises RecordError where it has neither."""
        if record.get("label") in (None, "", []):
            if record.get("text") is None and record.get("texts") is None:
                raise no_label(record)
            return []
        names = label_names(record)
        known = self._labels.names if self._labels and role == self.roles[0] else None
        if known and (unknown := next((name for name in names if name not in known), None)):
            raise unknown_label(unknown, known)
        return names

    def _held_out(self, rows: Rows, role: str) -> HeldOut:
        """The set of a role. Raises ClipkitError where nothing of it can be measured on."""
        found = HeldOut(
            rows,
            role,
            self.preprocess,
            labels=self._labels if role == self.roles[0] else None,
            templates=self.config["templates"],
            workers=self.runtime.get("workers") or available_cores(),
        )
        if not len(found):
            raise self._nothing(role)
        found.check()
        if found.left_out:
            self._heard.append(
                f"--{role}: {found.left_out:,} images with captions alone are left out: others have labels"
            )
        return found

    def _nothing(self, role: str) -> ClipkitError:
        """For a set without an image; what became of those that were read."""
        lost = [f"{kind} {count:,}" for kind, count in self._lost.items()]
        left = [f"{count:,} of the split {name}" for name, count in sorted(self._left.items())]
        if not self._lost.keys() - {"missing-label"}:
            hint = "expected images with a label, or with captions: --label-from folder takes it from the folder's name"
        else:
            hint = "--rejects FILE has what failed"
        if left and not lost:
            hint = "nothing is chosen on images for test, or trained on, unless --split names them: "
            hint += " or ".join(f"--split {name}" for name in [*sorted(self._left), ALL])
        named = " ".join([f"--{role}", *self.runtime.get("named", {}).get(role, ())])
        told = f": {', '.join(left + lost)}" if left or lost else ""
        return ClipkitError(f"{named}: no image can be measured on{told}", hint)

    def _encoded(self, terms: Terms, name: str, sets: Sequence[HeldOut]) -> list[Measure]:
        """What a mixture comes to on each set."""
        self._measured += 1
        self.doing = f"measuring {name}, {self._measured:,} of {self.candidates_in_all:,}"
        encoder = self.candidates.encoder(terms, name)
        try:
            return [held.measure(encoder) for held in sets]
        except RecordError as error:  # its features are not finite
            raise ClipkitError(error.message, "leave out the model that spoils it") from None
        finally:
            encoder.close()

    def _finish(self, terms: Terms, like: State, said: dict[str, Any], name: str) -> None:
        """Write the soup, if it is to be written; the last record says what it is.

        like: as `card.save` takes it. name: what its card calls the records that stand before that one.
        """
        said = {**said, "terms": card.said_of(terms)}
        made = {"kind": "soup", **said}
        if out := self.runtime.get("out"):
            self.doing = f"writing {out}"
            before = [{field: value for field, value in one.items() if field != "kind"} for one in self._records]
            made = card.save(out, like, mix(terms), {**said, name: before})
            del made[name]
        self._records.append(made)

    def _doubt(self, better: str, gain: dict[str, float], held: HeldOut) -> None:
        """Say it of a gain that may be none."""
        if gain.get("low", 0) <= 0:
            self._heard.append(f"{better} by {_points(gain)} on {len(held):,} images: that may be chance")

    def summary(self) -> Iterator[Record]:
        yield from map(Record, self._records)

    @property
    def results(self) -> list[str]:
        return [f"the soup is in {self._records[-1]['out']}"] if self._records and self.runtime.get("out") else []

    @property
    def facts(self) -> dict[str, Any]:
        return {"soup": self._records[-1]} if self._records else {}

    @property
    def notices(self) -> list[str]:
        left = ", ".join(f"{count:,} of {name}" for name, count in sorted(self._left.items()))
        taken = self.config["split"] or f"{VALIDATION}, or without one,"
        told = [f"images of the split {taken} are measured on; not {left}"] if left else []
        if self.config["split"] in (TEST, ALL):
            told.append("chosen on images for test: its figures on them flatter the soup")
        return [*super().notices, *self._heard, *told]

    def close(self) -> None:
        if hasattr(self, "candidates"):
            self.candidates.close()


class GreedySoup(_Souping):
    """Adds models to a soup, the best first, where that makes it better; see `soups.greedy`."""

    verb: ClassVar[str] = "soup greedy"
    roles: ClassVar[tuple[str, ...]] = (VALIDATION,)

    @property
    def candidates_in_all(self) -> int:
        return 2 * len(self.names) - 1

    def learn(self, rows: Rows) -> None:
        held = self._held_out(rows, VALIDATION)

        def measure(numbers: Sequence[int]) -> Measure:
            name = self.names[numbers[0]] if len(numbers) == 1 else f"a soup of {len(numbers)}"
            return self._encoded(self._terms(numbers), name, [held])[0]

        tried = list(greedy([measure([number]) for number in range(len(self.names))], measure))
        for one in tried:
            alone, soup = one.alone.said(_DOUBT), one.together.said(_DOUBT)
            self._records.append(
                {"kind": "ingredient", "model": self.names[one.number], "figure": held.figure, "n": len(held)}
                | {"alone": alone, "soup": soup, "taken": one.taken}
            )
        self._sum_up(tried, held)

    def _sum_up(self, tried: Sequence[Tried], held: HeldOut) -> None:
        taken = [one for one in tried if one.taken]
        best, last = taken[0], taken[-1]
        said: dict[str, Any] = {
            "recipe": "greedy",
            "figure": held.figure,
            "n": len(held),
            "soup": last.together.said(_DOUBT),
            "best": {"model": self.names[best.number], **best.alone.said(_DOUBT)},
            "gain": last.together.over(best.alone, _DOUBT),
        }
        terms = self._terms([one.number for one in taken])
        self._finish(terms, self.candidates.states[best.number], said, "tried")
        if len(taken) > 1:
            self._doubt(f"better than {said['best']['model']}", said["gain"], held)

    def _terms(self, numbers: Sequence[int]) -> Terms:
        """The mean of some models, by their numbers: the uniform soup, whatever the order they were added in."""
        return uniform_terms([self.candidates.states[number] for number in numbers])


class WiseSoup(_Souping):
    """Goes from BASE to TUNED and says what is won on the target and lost elsewhere; see `soups.wise`.

    config: models: BASE and TUNED; steps: of the sweep; alpha: what is written, None for the suggested one.
    runtime: plot: a file for the curve, or None.
    """

    verb: ClassVar[str] = "soup wise"
    roles: ClassVar[tuple[str, ...]] = (TARGET, OTHERS)
    defaults: ClassVar[dict[str, Any]] = {**_Souping.defaults, "steps": STEPS, "alpha": None}

    @property
    def candidates_in_all(self) -> int:
        return len(self._alphas)

    @property
    def _alphas(self) -> list[float]:
        return alphas(self.config["steps"], self.config["alpha"])

    def learn(self, rows: Rows) -> None:
        named = self.runtime.get("named", {})
        sets = [self._held_out(rows, role) for role in self.roles if role == TARGET or named.get(role)]
        states = self.candidates.states
        points = []
        for alpha in self._alphas:
            target, *others = self._encoded(wise_terms(states, alpha), f"alpha {alpha:g}", sets)
            points.append(Point(alpha, target, others[0] if others else None))
        best, thrifty = suggested(points), frugal(points)
        for point in points:
            said: dict[str, Any] = {"kind": "point", "alpha": point.alpha, TARGET: _of(point.target)}
            said |= {OTHERS: _of(point.others), "mean": round(point.mean, 6)} if point.others else {}
            self._records.append(said | {"suggested": point is best})
        chosen = best if self.config["alpha"] is None else next(p for p in points if p.alpha == self.config["alpha"])
        said = {"recipe": "wise", "alpha": chosen.alpha, "suggested": best.alpha}
        said |= {"frugal": thrifty.alpha} if thrifty else {}
        said |= {"over_base": _over(chosen, points[0]), "over_tuned": _over(chosen, points[-1])}
        self._finish(wise_terms(states, chosen.alpha), states[0], said, "curve")
        if self.config["alpha"] is None and chosen.alpha in (0, 1):
            self._heard.append(f"alpha {chosen.alpha:g} is suggested: {self.names[int(chosen.alpha)]} itself")
        gain = said["over_base"][TARGET]
        if self.config["alpha"] is None and gain["value"] > 0:
            self._doubt(f"alpha {chosen.alpha:g} is better than {self.names[0]} on the target", gain, sets[0])
        if path := self.runtime.get("plot"):
            plots.draw(self._drawn(sets), path)

    def _drawn(self, sets: Sequence[HeldOut]) -> dict[str, Any]:
        """The curve as `plots.draw` takes a run."""
        roles = self.roles[: len(sets)]
        points = self._records[:-1]
        axes = {role: {"x": "alpha", "y": held.figure} for role, held in zip(roles, sets, strict=True)}
        curves = {
            role: [
                {"x": one["alpha"], **{name: one[role][name] for name in ("value", "low", "high") if name in one[role]}}
                for one in points
            ]
            for role in roles
        }
        sources = [source for role in roles for source in self.runtime.get("named", {}).get(role, ())]
        data = {"n": sum(map(len, sets)), "sources": sources}
        model = " to ".join(self.names)
        return {"task": self.verb, "model": model, "data": data, "tables": {"curves": curves, "axes": axes}}

    @property
    def results(self) -> list[str]:
        if not self._records:
            return []
        made = self._records[-1]
        told = [*super().results, f"suggested: alpha {made['suggested']:g}, the best mean of what is measured"]
        if "frugal" in made:
            told.append(f"the largest alpha that loses at most {100 * LOSS:g} point on the others: {made['frugal']:g}")
        return told


def _of(measure: Measure) -> dict[str, Any]:
    return {"figure": measure.name, "n": measure.n, **measure.said(_DOUBT)}


def _over(point: Point, other: Point) -> dict[str, Any]:
    """How far it is above another, where both are measured."""
    made = {TARGET: point.target.over(other.target, _DOUBT)}
    if point.others and other.others:
        made[OTHERS] = point.others.over(other.others, _DOUBT)
    return made


def _told_apart(names: Sequence[str]) -> list[str]:
    """Names, of which equal ones get a number."""
    seen: Counter[str] = Counter()
    made = []
    for name in names:
        seen[name] += 1
        made.append(name if seen[name] == 1 else f"{name} ({seen[name]})")
    return made


def _points(said: dict[str, float]) -> str:
    """A difference of figures with its interval, in per cent points."""
    between = f" ({100 * said['low']:.1f} to {100 * said['high']:.1f})" if "low" in said else ""
    return f"{100 * said['value']:.1f} points{between}"
