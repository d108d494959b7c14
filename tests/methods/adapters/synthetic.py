"""Few-shot tasks without a model: classes that overlap along some directions and hardly along others."""

from __future__ import annotations

import numpy as np

from clipkit.methods.adapters.data import Features, Samples, Space, Task, unit
from clipkit.models.base import Identity, Preprocess

CLASSES, JOINT, BACKBONE = 20, 64, 96
SCALE = 22.36
MODEL = Identity("a-model", "ab" * 32, Preprocess((8, 8), (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)), "gelu", JOINT)


class World:
    """Gaussian classes of one anisotropic covariance around means; texts are the joint means, with noise.

    space: which features carry the signal a method works on; the other ones are there, too.
    """

    def __init__(
        self, seed: int = 0, classes: int = CLASSES, space: Space = "joint", width: float = 1.3, noise: float = 1.5
    ) -> None:
        self.random = np.random.default_rng(seed)
        draw = self.random.standard_normal
        self.means = draw((classes, JOINT)) / JOINT**0.5
        turned, _ = np.linalg.qr(draw((JOINT, JOINT)))
        self.spread = turned * (width * np.geomspace(3.0, 0.1, JOINT) / JOINT**0.5)
        self.lift = draw((JOINT, BACKBONE)) / BACKBONE**0.5
        text = unit(self.means + noise * draw((classes, JOINT)) / JOINT**0.5)
        names = tuple(f"class {number}" for number in range(classes))
        self.task = Task(names, text, SCALE, space=space, prompts=tuple((f"a {name}",) for name in names))

    def samples(self, per_class: int, views: int = 1, prefix: str = "s") -> Samples:
        labels = np.repeat(np.arange(len(self.means)), per_class)
        order = self.random.permutation(len(labels))
        labels = labels[order]
        plain = self.means[labels] + self.random.standard_normal((len(labels), JOINT)) @ self.spread.T
        rows = np.repeat(plain, views, axis=0)
        if views > 1:
            rows += 0.02 * self.random.standard_normal(rows.shape) * (np.arange(len(rows)) % views > 0)[:, None]
        features = Features(unit(rows), unit(np.maximum(rows @ self.lift, 0)))
        return Samples(self.task, labels, features, views=views, names=[f"{prefix}{row}" for row in range(len(labels))])
