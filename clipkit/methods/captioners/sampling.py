"""How a language model draws its answers: what a recipe says of it, and what a user may say instead."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from clipkit.errors import UsageError
from clipkit.methods.parameters import Parametrised, param
from clipkit.prompts.recipe import Recipe
from clipkit.stream.hashing import ticket


@dataclass(kw_only=True)
class Sampling(Parametrised):
    """Parameters (`--set`) that stand for a recipe's own where they are given."""

    variants: int | None = param(None, said="How many answers; else as the recipe says.", low=1)
    temperature: float | None = param(None, said="0 is always the likeliest; else as the recipe says.", low=0)
    top_p: float | None = param(None, said="Of the likeliest tokens, this share; else as the recipe says.", low=0)
    max_tokens: int | None = param(None, said="Of an answer; else as the recipe says.", low=1)

    def over(self, recipe: Recipe) -> Recipe:
        """The recipe with what was given. Raises UsageError."""
        own = {name: getattr(self, name) for name in ("variants", "temperature", "top_p", "max_tokens")}
        given = {name: value for name, value in own.items() if value is not None}
        try:
            return msgspec.convert(msgspec.to_builtins(recipe) | given, Recipe)
        except msgspec.ValidationError as error:
            message, _, path = str(error).partition(" - at ")
            what = path.strip("`$.")
            raise UsageError(f"--set {what}: {message[:1].lower()}{message[1:]}, not {given[what]:g}") from None


def seed_of(name: str, variant: int, seed: int) -> int:
    """What a server draws by, in 0 .. 2**31 - 1: of llama.cpp's 32 bits, and signed."""
    return int.from_bytes(ticket(f"{name}\0{variant}", seed, "chat")[:4], "big") >> 1
