"""The one interface of all adapters: scikit-learn's manners over features, files without code in them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import numpy as np

from clipkit.errors import UsageError
from clipkit.methods.adapters.data import Features, Samples, Task, product
from clipkit.methods.parameters import Parametrised

if TYPE_CHECKING:
    from clipkit.methods.adapters.network import Network
    from clipkit.models.base import Encoder


@dataclass(frozen=True)
class Head:
    """Logits that are linear in the features: joint @ W.T + backbone @ V.T + b, exactly what an adapter gives.

    joint: f64 [C, D], or None. backbone: f64 [C, B], or None. bias: f64 [C].
    """

    joint: np.ndarray | None
    backbone: np.ndarray | None
    bias: np.ndarray

    def logits(self, features: Features) -> np.ndarray:
        """f64 [n, C]."""
        out = np.tile(self.bias, (len(features), 1))
        if self.joint is not None:
            out += product(features.joint, self.joint)
        if self.backbone is not None:
            out += product(features.of("backbone"), self.backbone)
        return out


@dataclass(kw_only=True)
class Adapter(Parametrised):
    """A few-shot method. The constructor only stores; `fit` learns; `logits` answers; `fold` says it as one product.

    A subclass is a dataclass (kw_only) whose fields are its parameters (`param`), and gives `_fit` and `_logits`; one
    that is linear gives `_head` too; of one that isn't, `network` says how it ships. Adding a method is that one file
    and its line in `clipkit.methods.ADAPTERS`.

    needs: "features" alone, or the "model" and pictures. cost: what fitting takes, in words. citation: author, title,
    year. views: whether augmented views of the pictures are of use. closed_form: the fit doesn't depend on the order of
    the samples. all_classes: every class needs a sample. chooses: there is something to choose on validation data.
    tries_many: `--method auto` tries it.

    After fit: task_ (what it was fitted for), state_ (arrays, all that `logits` needs besides the task), chosen_ (what
    was chosen for parameters that are None), facts_ (what a report says, as JSON).
    blend: 1.0; less mixes the zero-shot logits in, 0 is zero-shot exactly (Wortsman et al., 2022, on outputs).
    temperature: what the method's logits are divided by, so that their softmax is a probability; `selection.fit` sets
    it where there is data to fit it on (Guo et al., 2017). It moves no image to another class.
    """

    needs: ClassVar[Literal["features", "model"]] = "features"
    cost: ClassVar[str] = ""
    citation: ClassVar[str] = ""
    views: ClassVar[bool] = False
    closed_form: ClassVar[bool] = False
    all_classes: ClassVar[bool] = True
    chooses: ClassVar[bool] = True
    tries_many: ClassVar[bool] = False

    task_: Task = field(init=False, repr=False, compare=False)
    state_: dict[str, np.ndarray] = field(init=False, repr=False, compare=False)
    chosen_: dict[str, Any] = field(init=False, repr=False, compare=False)
    facts_: dict[str, Any] = field(init=False, repr=False, compare=False)
    blend: float = field(default=1.0, init=False, repr=False)
    temperature: float = field(default=1.0, init=False, repr=False)

    def fit(
        self, support: Samples, validation: Samples | None = None, *, chosen: Mapping[str, Any] | None = None
    ) -> Self:
        """Learn from support; choose what is None among the parameters on validation, where there is any.

        chosen: what an earlier fit chose for them, where this one has no validation data (see `selection.fit`).
        Raises UsageError for a class without a sample, where the method needs one of each.
        """
        task = support.task
        if not len(support):
            raise UsageError("there is no labelled image to learn from")
        if self.all_classes and not support.counts.all():
            missing = [name for name, count in zip(task.classes, support.counts, strict=True) if not count]
            shown = ", ".join(map(repr, missing[:5])) + (f" and {len(missing) - 5} more" if len(missing) > 5 else "")
            raise UsageError(f"no image of {shown}: {self.name} needs one of each class", "leave the class out")
        self.task_, self.state_, self.chosen_, self.facts_ = task, {}, dict(chosen or {}), {}
        self.temperature = 1.0
        self._fit(support, validation if validation is not None and len(validation) else None)
        return self

    def logits(self, features: Features) -> np.ndarray:
        """f64 [n, C]. A row asked for alone doesn't depend on a batch, bitwise; softmax gives probabilities."""
        if self.blend == 1.0:
            return self._logits(features) / self.temperature
        before = self.task_.zero_shot(features)
        return before + self.blend * (self._logits(features) / self.temperature - before) if self.blend else before

    def fold(self) -> Head | None:
        """The same logits as one linear head; None where they are not linear in the features, or need another model."""
        head = self._head()
        if head is None:
            return None
        own, before = self.blend / self.temperature, 1 - self.blend
        plain = self.zero_shot_head()
        joint = None if head.joint is None else own * head.joint
        if before:
            assert plain.joint is not None
            joint = before * plain.joint + (0.0 if joint is None else joint)
        backbone = None if head.backbone is None else own * head.backbone
        return Head(joint, backbone, own * head.bias + before * plain.bias)

    def network(self, made: Network) -> str | None:
        """The method's own logits, before blend and temperature, as steps of a network, for one that doesn't fold.

        Returns the name of what the last step makes, [n, C]; None where nobody has said how.
        """
        return None

    def attach(self, encoder: Encoder) -> Encoder:
        """The encoder whose features `logits` wants: the given one, unless the method changes weights."""
        return encoder

    @classmethod
    def changes_weights(cls) -> bool:
        """Whether `attach` gives another model, so that images must be encoded anew."""
        return cls.attach is not Adapter.attach

    def zero_shot_head(self) -> Head:
        """The zero-shot logits as a head."""
        task = self.task_
        weights = task.scale * task.text.astype(np.float64)
        return Head(weights, None, np.full(len(task.classes), task.bias or 0.0))

    def over_zero_shot(self, alpha: float, weights: np.ndarray, bias: np.ndarray | None = None) -> Head:
        """zero-shot + alpha * (x @ weights.T + bias) as a head. weights: [C, d] on features of the task's space."""
        plain = self.zero_shot_head()
        assert plain.joint is not None
        added = alpha * weights.astype(np.float64)
        total = plain.bias if bias is None else plain.bias + alpha * bias
        if self.task_.space == "joint":
            return Head(plain.joint + added, None, total)
        return Head(plain.joint, added, total)

    def at(self, name: str) -> Any:
        """A parameter's value: as given, else as chosen, else what holds without validation data."""
        given = getattr(self, name)
        if given is not None:
            return given
        if name in self.chosen_:
            return self.chosen_[name]
        return next(f.metadata["untuned"] for f in fields(self) if f.name == name)

    @classmethod
    def describe(cls) -> dict[str, Any]:
        """What there is to know of the method, as JSON: needs, cost, citation, and its parameters."""
        needs = ["backbone or joint features"] if cls.needs == "features" else ["the model (open_clip, torch)"]
        needs += ["uses --views"] if cls.views else []
        return {"needs": ", ".join(needs), "cost": cls.cost, "citation": cls.citation, "params": cls.described()}

    def _fit(self, support: Samples, validation: Samples | None) -> None:
        raise NotImplementedError

    def _logits(self, features: Features) -> np.ndarray:
        head = self._head()
        assert head is not None, "a method gives _logits or _head"
        return head.logits(features)

    def _head(self) -> Head | None:
        return None
