"""Prompts about classes, written by a language model behind a server: CuPL, descriptions, or a recipe of one's own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from typing import Any, ClassVar

import msgspec

from clipkit.chat.client import Client, collected
from clipkit.chat.protocol import Answer, Ask
from clipkit.chat.settings import Settings, api_key
from clipkit.errors import RecordError, UsageError
from clipkit.methods.captioners.sampling import Sampling, seed_of
from clipkit.prompts import answers, asking, placeholders, recipes
from clipkit.stream.record import Record, encode_json
from clipkit.stream.spool import Rows
from clipkit.stream.stage import Outcome, Row
from clipkit.stream.table import Column
from clipkit.stream.whole import WholeStage
from clipkit.text.labels import listed

PROMPT_COLUMNS = (
    Column("class", 28, lambda row: row.id or ""),
    Column("prompts", 7, lambda row: f"{len(row['prompts']):,}", right=True),
    Column("the first", 60, lambda row: str(next(iter(row["prompts"]), ""))),
)


class _Sampling(Sampling):
    name: ClassVar[str] = "prompts generate"


class GeneratePrompts(WholeStage):
    """Asks about each class what a recipe asks, and writes the answers as prompts.

    A record is a class, its id the name. config: labels (names, in the order in which they are written; else sorted),
    kind (a recipe, by name or path), params (`Sampling`, JSON), server_model, seed; as_labels: write one object, class
    -> prompts, which is a label file, instead of a record a class. runtime: options, as `Settings.of` takes them.

    A class fails where no answer can be used; else it gets the prompts that there are, each once, and the other answers
    are counted. In a label file a class that failed stands without prompts: templates say what it is.
    """

    verb: ClassVar[str] = "prompts generate"
    defaults: ClassVar[dict[str, Any]] = {"kind": "cupl", "params": {}, "seed": 0, "as_labels": False}
    doing: str = "writing"
    waits: bool = True
    lanes: int = 1  # it only waits, for one class after the other: what came before an end is in the journal

    client: Client | None = None

    def setup(self) -> None:
        self.recipe = _Sampling(**self.config["params"]).over(recipes.load(self.config["kind"]))
        if self.recipe.method != "labels":
            hint = f"recaption takes it; about classes there are {', '.join(of_labels())}"
            raise UsageError(f"the recipe {self.recipe.name} asks about captions, not about classes", hint)
        options = self.runtime.get("options", {})
        deciding = {"server_model": self.config["server_model"]} if self.config.get("server_model") else {}
        self.client = Client(Settings.of(options | deciding), api_key())
        each = max(1, len(self.recipe.questions)) * self.recipe.variants
        self.read_ahead = 1 + 4 * self.client.settings.concurrency // each  # one that is slow must not keep all waiting
        self._found: dict[str, list[str]] = {}
        self._bad: Counter[str] = Counter()
        self._asked = 0

    @property
    def summarises(self) -> bool:
        return True

    def fingerprint(self) -> dict[str, Any]:
        assert self.client is not None
        return {
            "recipe": msgspec.to_builtins(self.recipe),
            "model": self.client.model,
            "seed": self.config["seed"],
        }

    def prepare(self, record: Record) -> Future[list[Answer | RecordError]]:
        assert self.client is not None
        return self.client.ask(self._asks(record.id or ""))

    def _asks(self, label: str) -> list[Ask]:
        """What is asked about a class: each question, as often as there are variants."""
        recipe, asked = self.recipe, []
        name = asking.one_line(label)
        for number, question in enumerate(recipe.questions or ("",)):
            fields = {"label": name, "question": placeholders.fill(question, {"label": name})}
            for variant in range(recipe.variants):
                system, user = asking.ask(recipe, fields, label, variant, self.config["seed"])
                seed = seed_of(f"{label}\0{number}", variant, self.config["seed"])
                drawn = {name: getattr(recipe, name) for name in ("temperature", "top_p", "max_tokens")}
                asked.append(Ask(user, system, **drawn, seed=seed))
        return asked

    def process(self, items: list[Any]) -> list[Outcome]:
        return [self._row(coming) for coming in items]

    def _row(self, coming: Future[list[Answer | RecordError]]) -> Outcome:
        """The texts that a class's answers hold, each once, and what kinds of answers could not be used."""
        try:
            came = collected(coming)
        except RecordError as error:
            return error
        texts: dict[str, None] = {}
        errors: list[RecordError] = []
        for answer in came:
            try:
                if isinstance(answer, RecordError):
                    raise answer
                texts |= dict.fromkeys(text for _, text in answers.texts(self.recipe, answer.text))
            except RecordError as error:
                errors.append(error)
        if not texts:
            return errors[0]
        return Row(encode_json({"texts": list(texts), "asked": len(came), "bad": [error.kind for error in errors]}))

    def lost(self, item: Any, kind: str) -> None:
        """A class without prompts keeps its place: a label file without it would be of other classes."""
        if isinstance(item, Record):
            self._found[item.id or ""] = []

    def learn(self, rows: Rows) -> None:
        for name, row in rows:
            said = msgspec.json.decode(row)
            fill = {"label": name}
            self._found[name] = [
                placeholders.fill(self.recipe.template, fill | {"answer": text}) for text in said["texts"]
            ]
            self._asked += said["asked"]
            self._bad.update(said["bad"])

    def summary(self) -> Iterator[Record]:
        order = self.config.get("labels") or sorted(self._found)
        found = {name: self._found[name] for name in order if name in self._found}
        if self.config["as_labels"]:
            yield Record(found)
        else:
            yield from (Record({"id": name, "prompts": prompts}) for name, prompts in found.items() if prompts)

    @property
    def notices(self) -> list[str]:
        """What the server cost, which answers were of no use, which classes have no prompts."""
        if self.client is None:
            return []
        bare = [name for name, prompts in self._found.items() if not prompts]
        said = list(self.client.notices)
        if self._bad:
            kinds = ", ".join(f"{kind} {count:,}" for kind, count in sorted(self._bad.items()))
            said.append(f"{self._bad.total():,} of {self._asked:,} answers could not be used: {kinds}")
        if bare and self.config["as_labels"]:
            said.append(f"{len(bare):,} have no prompts, and templates will say what they are: {listed(bare)}")
        return said

    @property
    def facts(self) -> dict[str, Any]:
        """The server's counts are of this run, the others of all classes."""
        if self.client is None:
            return {}
        prompts = sum(map(len, self._found.values()))
        return {"server": self.client.facts, "answers": self._asked, "bad": dict(self._bad), "prompts": prompts}

    def stop(self) -> None:
        if self.client is not None:
            self.client.stop()

    def close(self) -> None:
        if self.client is not None:
            self.client.close()


def of_labels() -> list[str]:
    """The names of the recipes about classes."""
    return [recipe.name for recipe in recipes.listing() if recipe.method == "labels"]


def sampling(settings: Mapping[str, str]) -> dict[str, Any]:
    """`--set` as the config has it. Raises UsageError."""
    return {name: value for name, value in _Sampling.from_settings(settings).params.items() if value is not None}
