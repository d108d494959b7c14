"""What became of the records of a run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from clipkit.errors import ExitCode, RecordError


@dataclass
class Counts:
    """read = kept + dropped + failed + passed; `passed` arrived with an error and went through untouched."""

    read: int = 0
    kept: int = 0
    dropped: int = 0
    failed: int = 0
    passed: int = 0
    failures: Counter[str] = field(default_factory=Counter)  # by RecordError.kind
    drops: Counter[str] = field(default_factory=Counter)  # by Drop.reason
    first: RecordError | None = None  # failure

    @property
    def add_up(self) -> bool:
        return self.read == self.kept + self.dropped + self.failed + self.passed

    def fail(self, error: RecordError) -> None:
        self.failed += 1
        self.failures[error.kind] += 1
        self.first = self.first or error

    @property
    def advice(self) -> str | None:
        """What to do where all that was read failed, all for one reason: the command line is wrong, most likely."""
        if self.first is None or not self.first.hint or self.failures[self.first.kind] != self.read:
            return None
        return f"hint: {self.first.message}: {self.first.hint}"

    def choose(self, kept: int, drops: Counter[str]) -> None:
        """Count records that were decided together."""
        self.kept += kept
        self.dropped += drops.total()
        self.drops.update(drops)

    def funnel(self, steps: Sequence[str]) -> Iterator[str]:
        """For each reason for which a stage drops, in its order, a line: how many it took, and how many were left."""
        left = self.kept + self.dropped
        width = len(f"{left:,}")
        for step in dict.fromkeys(steps):
            left -= self.drops[step]
            yield f"  {self.drops[step]:>{width},} dropped, {left:>{width},} left: {step}"

    def summary(self, verb: str, seconds: float, kept: str = "kept") -> str:
        """One line for people. kept: what is said of those that are."""
        parts = [
            f"{getattr(self, n):,} {kept if n == 'kept' else n}"
            for n in ("kept", "dropped", "failed", "passed")
            if n == "kept" or getattr(self, n)
        ]
        reasons = [f"{kind} {n:,}" for kind, n in self.failures.most_common()]
        told = f" ({', '.join(reasons[:4])}{', ...' if len(reasons) > 4 else ''})" if reasons else ""
        return f"clipkit {verb}: {self.read:,} read, {', '.join(parts)}{told} in {seconds:.1f} s"

    def report(self, verb: str, code: ExitCode) -> dict[str, Any]:
        """For machines: the same for a run in one go and for one that was stopped and resumed."""
        return {
            "verb": verb,
            "exit": int(code),
            "counts": {name: getattr(self, name) for name in ("read", "kept", "dropped", "failed", "passed")},
            "failures": dict(sorted(self.failures.items())),
            "drops": dict(sorted(self.drops.items())),
        }
