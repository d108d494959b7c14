"""Duplicates: found by any of several methods, decided by one rule."""

from __future__ import annotations

import contextlib
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from clipkit.errors import RecordError, UsageError
from clipkit.methods import DEDUPERS
from clipkit.methods.dedupers import rules, target
from clipkit.methods.dedupers.base import Deduper, Links, Look
from clipkit.methods.dedupers.looking import Looking, Seen
from clipkit.methods.dedupers.ranking import KEEPS, ranked
from clipkit.methods.dedupers.references import References
from clipkit.methods.dedupers.semantic import LEAST_EPS, NearFeatures, Semantic
from clipkit.methods.dedupers.table import Table
from clipkit.stream.fieldnames import Sought
from clipkit.stream.record import Record
from clipkit.stream.spool import Rows
from clipkit.stream.stage import Drop, Outcome, Row, policy
from clipkit.stream.whole import WholeStage

if TYPE_CHECKING:
    from clipkit.features.embedder import Embedder
    from clipkit.images.opener import Opener


@dataclass(slots=True)
class _Item:
    value: float
    seen: Seen


class Dedup(WholeStage):
    """Keeps one of each group of duplicates.

    config: by, names of DEDUPERS: two records are linked if one of them says so. hamming, eps, k, assign: of those
    methods. rule: chain, greedy or component (`rules.judge`). keep (default: hard with semantic, else first) and
    best_by: which one stays (`ranked`). target_fraction: instead of eps, the part of the records to keep. against:
    feature stores and files of records that records are compared with too; only_against: with nothing else. audit: how
    many images are compared with all others, to say what the clusters missed. mark: kept records say their group.
    With semantic as `open_embedder` takes it. runtime: on_error, as the run has it: with `fail` a reference that cannot
    be read stops the run, else it is left out and told of.
    """

    verb: ClassVar[str] = "dedup"
    adds: ClassVar[tuple[str, ...]] = ("dup", "drop")
    defaults: ClassVar[dict[str, Any]] = {
        "rule": "chain",
        "keep": None,
        "best_by": None,
        "target_fraction": None,
        "against": [],
        "only_against": False,
        "audit": 0,
        "mark": False,
        "model": "lite",
        "exact_decode": False,
        "features": None,
    }

    embedder: Embedder | None = None
    opener: Opener | None = None

    def __init__(self, config: dict[str, Any], runtime: dict[str, Any] | None = None) -> None:
        super().__init__(config, runtime)
        options = {name: value for name, value in self.config.items() if value is not None}
        self.methods: list[Deduper] = [DEDUPERS.get(name)(options) for name in self.config["by"]]
        self.encodes = any(method.encodes for method in self.methods)
        self.keep: str = self.config["keep"] or ("hard" if self.encodes else "first")
        self._notices: list[str] = []
        self._facts: dict[str, Any] = {}
        self._sought, self._lock = Sought([self.config["best_by"]] if self.config["best_by"] else []), threading.Lock()
        self._check()

    def _check(self) -> None:
        if not self.methods:
            raise UsageError("--by names no method", "see: clipkit methods dedupers")
        if len({method.name for method in self.methods}) < len(self.methods):
            raise UsageError("--by names a method twice")
        if self.keep not in KEEPS or self.config["rule"] not in rules.RULES:
            raise UsageError(f"keep is one of {', '.join(KEEPS)}, rule one of {', '.join(rules.RULES)}")
        if (self.keep == "best") != bool(self.config["best_by"]):
            raise UsageError("--keep best and --best-by FIELD go together", "for example: --best-by scores.clip")
        for flag in ("eps", "k", "assign", "target_fraction", "audit"):
            if self.config.get(flag) not in (None, 0) and not self.encodes:
                raise UsageError(f"--{flag.replace('_', '-')} is about features", "add semantic to --by")
        if self.config.get("hamming") is not None and not {"phash", "dhash"} & set(self.config["by"]):
            raise UsageError("--hamming is about phash and dhash", "add one of them to --by")
        if self.keep in ("hard", "easy") and not self.encodes:
            raise UsageError(f"--keep {self.keep} is about clusters of features", "add semantic to --by")
        fraction = self.config["target_fraction"]
        if fraction is not None and (self.config.get("eps") is not None or self.config["only_against"]):
            raise UsageError("--target-fraction goes neither with --eps nor with --only-against")
        if fraction is not None and not 0 < fraction <= 1:
            raise UsageError(f"--target-fraction is the part to keep, from 0 to 1, not {fraction:g}")
        if self.config["only_against"] and not self.config["against"]:
            raise UsageError("--only-against needs --against", "name a feature store or a file of records")

    @property
    def opens_images(self) -> bool:
        """Where they may have to be; records with digests of their own, or features from a store, need none."""
        features = self.encodes and not self.config["features"]
        return features or self.keep == "largest" or any(method.opens for method in self.methods)

    @property
    def notices(self) -> list[str]:
        return self._notices

    @property
    def facts(self) -> dict[str, Any]:
        return self._facts

    def setup(self) -> None:
        if self.encodes:
            from clipkit.features.embedder import open_embedder

            self.embedder = open_embedder(self.config, self.runtime)
            self.opener = self.embedder.opener
            encoder = self.embedder.encoder
            self.batch_size, self.lanes = encoder.batch_size, encoder.lanes
            self.item_bytes = self.embedder.item_bytes
        elif self.opens_images:
            from clipkit.images.opener import Opener

            names = ("root", "confine", "remote")
            self.opener = Opener(**{name: self.runtime[name] for name in names if name in self.runtime})
        stored = bool(self.config["features"])
        self.looking = Looking(self.methods, self.opener, self.embedder, stored=stored)
        self.table = Table(self.methods, self.embedder.encoder.identity.dim if self.embedder else 0)
        identity = self.embedder.encoder.identity if self.embedder else None
        self.references = References(
            self.config["against"],
            self.methods,
            self.table,
            identity,
            self.opener,
            self.runtime.get("root"),
            strict=policy(self, self.runtime.get("on_error")) == "fail",
        )

    def fingerprint(self) -> dict[str, Any]:
        """About rows alone: what decides (the rule, eps, what is kept) may change between runs."""
        said = {"by": self.config["by"], "best_by": self.config["best_by"], "largest": self.keep == "largest"}
        if self.embedder:
            encoder = self.embedder.encoder
            said |= {name: value for name, value in self.config.items() if name == "exact_decode"}
            said |= {"encoder": str(encoder.identity), "space": encoder.space}
        return said

    def stamp(self, record: Record) -> str:
        return self.looking.stamp(record)

    # The first pass: a row of each record.

    def prepare(self, record: Record) -> _Item:
        look = Look(record, self.opener)
        seen = self.looking.see(look)
        return _Item(self._value(record, look), seen)

    def _value(self, record: Record, look: Look) -> float:
        """What `best` and `largest` go by; NaN where a record does not say."""
        if self.keep == "best":
            with self._lock:
                self._sought.look(record)
            value = record.lookup(self.config["best_by"])
            if value is None:
                return float("nan")
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise RecordError("bad-field", f"field {self.config['best_by']!r} is not a number", "see --best-by")
            return _as_float(value, self.config["best_by"])
        if self.keep == "largest":
            width, height = record.get("width"), record.get("height")
            if not isinstance(width, int) or not isinstance(height, int):
                from clipkit.images.decode import probe

                size = probe(look.data)
                width, height = size.width, size.height
            return _as_float(width * height, "width")
        return float("nan")

    def process(self, items: list[Any]) -> list[Outcome]:
        features = self.looking.features([item.seen for item in items])
        return [self._row(item, row) for item, row in zip(items, features, strict=True)]

    def _row(self, item: _Item, features: np.ndarray | RecordError | None) -> Outcome:
        if isinstance(features, RecordError):
            return features
        return Row(self.table.pack(item.value, item.seen.keys, features))

    # Between the passes: who is linked to whom, and who goes.

    def learn(self, rows: Rows) -> None:
        with contextlib.closing(self.references.rows()) as references:
            self._learn(references, rows)

    def _learn(self, references: Rows, rows: Rows) -> None:
        parts, fixed = (references, rows), len(references)
        heads = self.table.heads(parts)
        n = len(heads)
        if np.isnan(heads["value"][fixed:]).all():  # also of what an earlier run remembers
            self._sought.check()
        vectors = self.table.vectors(parts) if self.table.dim else None
        present = [(heads["present"] >> number & 1).astype(bool) for number in range(len(self.methods))]
        links = [m.links(heads[m.name], here, vectors) for m, here in zip(self.methods, present, strict=True)]
        features = next((found for found in links if isinstance(found, NearFeatures)), None)
        distance = _distance(features)[fixed:] if features else None
        own = ranked(self.keep, heads["value"][fixed:], distance, rows.ids)
        order = np.concatenate([np.arange(fixed), own + fixed])
        if features and self.config["target_fraction"] is not None:
            verdict = self._aim(links, features, order, fixed)
        else:
            verdict = self._judge(links, order, fixed)
        self._fixed = fixed
        self._kept, self._group, self._method = np.empty(n, np.int64), np.empty(n, np.int64), np.empty(n, np.uint8)
        self._kept[order], self._group[order] = order[verdict.kept], order[verdict.group]
        self._method[order] = verdict.method
        self._limits = [
            found.eps if isinstance(found, NearFeatures) else method.limit
            for method, found in zip(self.methods, links, strict=True)
        ]
        self._names = self._name(references, rows) if self.config["mark"] else {}
        self._tell(heads["value"][fixed:], present, features, verdict, fixed)

    def _judge(self, links: list[Links], order: np.ndarray, fixed: int) -> rules.Verdict:
        methods = [rules.RankedLinks(found, order) for found in links]
        within = not self.config["only_against"]
        return rules.judge(methods, len(order), self.config["rule"], fixed=fixed, within=within)

    def _aim(self, links: list[Links], features: NearFeatures, order: np.ndarray, fixed: int) -> rules.Verdict:
        """Set the eps that keeps the part asked for, and judge by it."""
        keep = int(self.config["target_fraction"] * (len(order) - fixed) + 0.5)
        others = [rules.RankedLinks(found, order) for found in links if found is not features]
        rule: rules.Rule = self.config["rule"]

        def judged(eps: float) -> rules.Verdict:
            features.eps = eps
            return self._judge(links, order, fixed)

        eps = target.solve_chain(features, order, others, keep, fixed=fixed)
        if rule == "chain":
            verdict = judged(eps)
            if verdict.counts[rule] == keep or not LEAST_EPS < eps < 2:
                return verdict
        return judged(target.solve(rule, eps, keep, lambda eps: judged(eps).counts[rule]))

    def _name(self, references: Rows, rows: Rows) -> dict[int, str]:
        """The ids of records that others are duplicates of, by number."""
        named = np.zeros(len(self._kept), bool)
        duplicates = self._group != np.arange(len(self._group))
        named[self._kept[duplicates]] = named[self._group[duplicates]] = True
        ids = (name for part in (references, rows) for name in part.ids())
        return {number: name for number, name in enumerate(ids) if named[number]}

    def _tell(
        self,
        values: np.ndarray,
        present: list[np.ndarray],
        features: NearFeatures | None,
        verdict: rules.Verdict,
        fixed: int,
    ) -> None:
        """What a person should hear."""
        self._facts = {"kept_by_rule": dict(verdict.counts)}
        if len(set(verdict.counts.values())) > 1:
            rule = self.config["rule"]
            (one, first), (other, second) = ((name, n) for name, n in verdict.counts.items() if name != rule)
            others = f"{one} would keep {first:,}, {other} {second:,}"
            self._notices.append(f"--rule {rule} keeps {verdict.counts[rule]:,}; {others}")
        if self.config["against"]:
            self._facts["references"] = {"compared": fixed, "left_out": self.references.left_out.count}
            self._notices += self.references.left_out.notices
        if self.keep == "best" and (missing := int(np.isnan(values).sum())):
            self._notices.append(f"records without {self.config['best_by']}, which come after all others: {missing:,}")
        if self.config["mark"] and "" in self._names.values():
            self._notices.append("some records have no id, so that `dup` cannot name them")
        if features:
            number = next(number for number, method in enumerate(self.methods) if isinstance(method, Semantic))
            self._tell_features(features, len(values), int((~present[number][fixed:]).sum()))

    def _tell_features(self, features: NearFeatures, records: int, without: int) -> None:
        clusters = features.neighbours.clusters
        k, assigned = len(clusters.centroids), clusters.nearest.shape[1]
        self._facts |= {"eps": features.eps, "k": k, "assign": assigned}
        if self.config["target_fraction"] is not None:
            kept = self._facts["kept_by_rule"][self.config["rule"]]
            self._notices.append(f"--eps {features.eps:.9g} keeps {kept:,} of {records:,}")
        if without:
            self._notices.append(f"records without features, which are compared with none: {without:,}")
        if audited := self.config["audit"]:
            # their digests' order is as good as random, but training took its sample from the front of it
            chosen = np.arange(features.count)[::-1][:audited]
            there, found = features.neighbours.audit(1 - features.eps, chosen)
            recall = found / there if there else 1.0
            self._facts["audit"] = {"images": len(chosen), "pairs": there, "found": found, "recall": round(recall, 6)}
            self._notices.append(
                f"audit: {len(chosen):,} images have {there:,} pairs over cosine {1 - features.eps:.6g}; "
                f"in {k:,} cluster{'s' * (k > 1)} {found:,} are found, recall {recall:.4f}"
            )

    # The second pass.

    def decide(self, record: Record, row: bytes, number: int) -> Outcome:
        item = number + self._fixed
        kept, method = int(self._kept[item]), int(self._method[item])
        if self.config["mark"] and method != rules.NO_METHOD:
            group = self._names.get(int(self._group[item])) or None
            names = {"group": group, "kept": self._names.get(kept) or None}
            record.add("dup", names, f"{self.verb}/{self.methods[method].name}")
        if kept == item:
            return record
        return Drop(self.verb, self.methods[method].name, self._names.get(kept) or None, self._limits[method])

    def close(self) -> None:
        if self.embedder:
            self.embedder.close()


def _as_float(value: float, name: str) -> float:
    try:
        return float(value)
    except OverflowError:
        raise RecordError("bad-field", f"field {name!r} is too large a number") from None


def _distance(links: NearFeatures) -> np.ndarray:
    """Each item's distance to its centroid, f64 [n]; NaN without features."""
    by_class = np.append(links.neighbours.clusters.distance, np.nan)
    return np.asarray(by_class[links.classes])
