"""What a run of requests came to: how many, what they took, what that cost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from clipkit.chat.protocol import Answer


@dataclass
class Tally:
    """price: of a million tokens sent, and of as many answered.

    requests: that were sent; repeated: of them, further tries. answered: with an answer that could be read; refused:
    with a status that says no. tokens_in, tokens_out: as the server counts them; uncounted: answers of which it didn't.
    cut: answers that ended at their `max_tokens`.
    """

    price: tuple[float, float] | None = None
    requests: int = 0
    repeated: int = 0
    answered: int = 0
    refused: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    uncounted: int = 0
    cut: int = 0

    def add(self, answer: Answer) -> None:
        self.answered += 1
        self.cut += answer.cut
        if answer.tokens_in is None or answer.tokens_out is None:
            self.uncounted += 1
        else:
            self.tokens_in += answer.tokens_in
            self.tokens_out += answer.tokens_out

    @property
    def spent(self) -> int:
        """Tokens, in and out."""
        return self.tokens_in + self.tokens_out

    @property
    def cost(self) -> float | None:
        """By the prices, where they were given."""
        if self.price is None:
            return None
        return round((self.tokens_in * self.price[0] + self.tokens_out * self.price[1]) / 1e6, 9)

    @property
    def said(self) -> str:
        """The tokens and their cost, for people."""
        price = "" if self.cost is None else f", which cost {self.cost:,.{4 if self.cost >= 0.01 else 6}f}"
        return f"{self.tokens_in:,} tokens in, {self.tokens_out:,} out{price}"

    @property
    def facts(self) -> dict[str, Any]:
        """All of it, as JSON."""
        names = ("requests", "repeated", "refused", "answered", "cut", "tokens_in", "tokens_out", "uncounted")
        return {name: getattr(self, name) for name in names} | ({} if self.cost is None else {"cost": self.cost})

    def notices(self, model: str) -> list[str]:
        """What a person should hear at the end."""
        told = [f"{model}: {self.said}"] if self.spent else []
        told += [f"{self.repeated:,} requests were repeated"] if self.repeated else []
        told += [f"of {self.uncounted:,} answers the server didn't say how many tokens"] if self.uncounted else []
        told += [f"{self.cut:,} answers were cut: --set max_tokens=N gives them more room"] if self.cut else []
        return told
