"""What captioners share that ask a language model behind a server, by a recipe."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import msgspec

from clipkit.chat.client import Client, collected
from clipkit.chat.protocol import Answer, Ask
from clipkit.chat.settings import Settings, api_key
from clipkit.errors import RecordError, UsageError
from clipkit.methods.captioners.base import Captioner, Request, Written
from clipkit.methods.captioners.sampling import Sampling, seed_of
from clipkit.prompts import answers, asking, recipes
from clipkit.stream.captions import Caption

if TYPE_CHECKING:
    from clipkit.features.embedder import Embedder

SERVER_OPTIONS = frozenset({"server", "server_model", "concurrency", "timeout", "retries", "max_tokens_total", "price"})


@dataclass(frozen=True, slots=True)
class _Begun:
    """seeds: that were sent, one a variant."""

    seeds: tuple[int, ...]
    coming: Future[list[Answer | RecordError]]


@dataclass(kw_only=True)
class Served(Sampling, Captioner):
    """Asks a server as a recipe says; a variant is a request of its own, and those of a record run at once.

    A record fails where no variant has an answer that can be used; else it gets the captions of those that have, and
    the others are counted. A record is begun or not as a whole where a budget ends.
    """

    method: ClassVar[Literal["vlm", "rewrite"]]
    default_recipe: ClassVar[str]
    waits = True
    takes = SERVER_OPTIONS | {"recipe"}

    batch_size: int = field(default=1, init=False)  # a record is done when its own answers are there

    def setup(self, embedder: Embedder | None, device: str) -> None:
        self.recipe = self.over(recipes.load(self.options.get("recipe") or self.default_recipe))
        if self.recipe.method != self.method:
            asked = "with" if self.recipe.method == "vlm" else "without"
            raise UsageError(
                f"the recipe {self.recipe.name} asks {asked} a picture: it is for {self.recipe.method}",
                f"clipkit recaption --method {self.recipe.method} --recipe {self.recipe.name}"
                if self.recipe.method != "labels"
                else "clipkit prompts generate takes it",
            )
        self.unused = 0  # variants without a caption, of records that have others
        self.client = Client(Settings.of(self.options), api_key())

    @property
    def identity(self) -> str:
        """The model's name as the server has it: nobody says which weights that are."""
        return self.client.model

    @property
    def decides(self) -> dict[str, Any]:
        return {"recipe": msgspec.to_builtins(self.recipe)}

    def picture(self, request: Request) -> str:
        """The picture to send, as a data URL; "" for none. Raises RecordError."""
        return ""

    def begin(self, request: Request) -> _Begun:
        fields = asking.fields_of(self.recipe, request.captions, request.record)
        picture = self.picture(request)
        seeds = tuple(seed_of(request.name, variant, self.seed) for variant in range(self.recipe.variants))
        asks = []
        for variant, seed in enumerate(seeds):
            system, user = asking.ask(self.recipe, fields, request.name, variant, self.seed)
            asks.append(
                Ask(
                    user,
                    system,
                    picture,
                    temperature=self.recipe.temperature,
                    top_p=self.recipe.top_p,
                    max_tokens=self.recipe.max_tokens,
                    seed=seed,
                )
            )
        return _Begun(seeds, self.client.ask(asks))

    def finish(self, begun: list[Any]) -> list[Written | RecordError]:
        return [self._written(one) for one in begun]

    def _written(self, begun: _Begun) -> Written | RecordError:
        try:
            came = collected(begun.coming)
        except RecordError as error:
            return error
        captions: list[Caption] = []
        errors: list[RecordError] = []
        for variant, (answer, seed) in enumerate(zip(came, begun.seeds, strict=True)):
            try:
                if isinstance(answer, RecordError):
                    raise answer
                captions += answers.read(self.recipe, answer.text, variant, model=self.identity, seed=seed)
            except RecordError as error:
                errors.append(error)
        if not captions:
            return errors[0]
        self.unused += len(errors)
        return Written(captions)

    @property
    def notices(self) -> list[str]:
        if not hasattr(self, "client"):
            return []
        unused = [f"{self.unused:,} variants gave no caption, of records that have others"] if self.unused else []
        return [*self.client.notices, *unused]

    @property
    def facts(self) -> dict[str, Any]:
        return {"server": self.client.facts, "unused_variants": self.unused} if hasattr(self, "client") else {}

    def stop(self) -> None:
        if hasattr(self, "client"):
            self.client.stop()

    def close(self) -> None:
        if hasattr(self, "client"):
            self.client.close()
