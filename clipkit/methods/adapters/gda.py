"""Gaussian discriminant analysis on features, beside the zero-shot logits."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar, Final, Literal

import numpy as np
from scipy.linalg import cho_factor, cho_solve

from clipkit.methods.adapters.base import Adapter, Head, param
from clipkit.methods.adapters.data import JOINT, Samples, product
from clipkit.methods.adapters.moments import class_sums
from clipkit.methods.adapters.tuning import Axis, tune

_BLOCK: Final = 8192  # rows made f64 at a time
_FLAT: Final = 1e-12  # less variance within classes than this, of the squares of the features, is rounding
_NEAREST: Final = 64  # images that stand for a class without any of its own
_TEXTS: Final = 16  # times that its text counts among them


@dataclass(kw_only=True)
class Gda(Adapter):
    """Gaussians with one covariance for all classes (Wang et al., "A Hard-to-Beat Baseline for Training-free CLIP-based
    Adaptation", ICLR 2024).

    logits = zero-shot + alpha * unit * (f @ W + b) with w_c = P mu_c, b_c = -1/2 mu_c' P mu_c. mu_c: class means.
    P = (S + tr(S) / (n - 1) I)^-1: the inverse of the covariance S within classes, shrunk as in the paper, over n
    samples of which each augmented view is one. It is solved for in f64, in n or d dimensions, whichever are fewer.

    The paper's inverse is d / (n - 1) times P, so its alpha has another best value for each n and d. Ours counts in a
    unit under which 1 is right for all of them, the log posterior of a new image: C means taken out of m images make S
    too small by (m - C) / m, and that means of m / C images are themselves uncertain widens it by 1 + C / m. So
    unit = (m - C) / (m + C), and `facts_` has the alpha that the paper would give for it. Where each class has a single
    image, nothing is known of S: P is the identity. In this case, and as the least for any, the unit is such that the
    logits of both parts spread alike over the class means.

    Unequal counts: S pools all samples, and classes are equally probable beforehand, as in the original. With prior =
    "empirical", for use where classes are as frequent as in the support, log (m_c + 1) / (m + C) is added to the logits
    (not inside of b, where alpha would multiply it: how probable a class is doesn't hang on how far S is trusted).

    Classes without an image (the paper's base-to-new): mu_c is the mean of the 64 samples with the highest zero-shot
    logit for it and of 16 copies of its text feature, and S is taken of those samples around that text feature. On the
    backbone's features there is no text: mu_c is the mean of the 64 alone, and S is taken around it. The original has a
    model of its own for new classes, where P is the mean of their inverses; here all classes stand in one, and P is the
    mean over them all, each class with images giving the pooled one.

    The original chooses alpha for ImageNet on the test set; here it is chosen on validation data (at most 1 where some
    class has no image even there), and else 1.
    """

    name: ClassVar[str] = "gda"
    cost: ClassVar[str] = "one pass over the features and one linear system of min(n, d) unknowns"
    citation: ClassVar[str] = "Wang et al., A Hard-to-Beat Baseline for Training-free CLIP-based Adaptation, 2024"
    views: ClassVar[bool] = True
    closed_form: ClassVar[bool] = True
    all_classes: ClassVar[bool] = False
    tries_many: ClassVar[bool] = True

    alpha: float | None = param(None, "weight on the Gaussians' log posterior", untuned=1.0, low=0)
    prior: Literal["uniform", "empirical"] = param("uniform", "how probable classes are: alike, or as in the support")

    def _fit(self, support: Samples, validation: Samples | None) -> None:
        rows, labels = support.every_view()
        seen = np.flatnonzero(support.counts)
        means = _means(rows, labels, len(support.counts))
        near = {c: _nearest(support, c) for c in np.flatnonzero(support.counts == 0).tolist()}
        for c, (samples, centre) in near.items():
            texts = _TEXTS if support.task.space == JOINT else 0
            means[c] = (samples.sum(axis=0, dtype=np.float64) + texts * centre) / (len(samples) + texts)

        weights = whitened(rows, labels, means, means)
        known = weights is not None
        if weights is None:
            weights = means.copy()
        elif near:
            total = len(seen) * weights
            for samples, centre in near.values():
                own = whitened(samples, np.zeros(len(samples), np.int64), centre[None], means)
                total += weights if own is None else own
            weights = total / len(means)
        bias = -0.5 * np.einsum("cd,cd->c", means, weights)

        unit = max(_posterior(support) if known else 0.0, _alike(support, means[seen] @ weights.T + bias, seen))
        self.state_ = {"weights": unit * weights, "bias": unit * bias, "prior": self._log_prior(support)}
        if self.alpha is None and validation is not None:
            unseen = np.any(support.counts + validation.counts == 0)
            # without a picture of some class, what a larger alpha does to it would not be noticed
            self._tune(validation, Axis(1e-3, 1, 7, zero=True) if unseen else Axis(1e-3, 1e3, 13, zero=True))
        if known:
            n, d = rows.shape
            self.facts_ = {"paper_alpha": float(self.at("alpha") * unit * (n - 1) / d)}

    def _tune(self, validation: Samples, axis: Axis) -> None:
        plain, task = validation.plain, self.task_
        own = product(plain.of(task.space), self.state_["weights"]) + self.state_["bias"]
        base = task.zero_shot(plain) + self.state_["prior"]
        chosen = tune(base, lambda _: own, validation.labels, axis)
        self.chosen_ = {"alpha": chosen.alpha}

    def _log_prior(self, support: Samples) -> np.ndarray:
        """What is added to the logits for how frequent classes are, f64 [C]."""
        counts = support.counts
        if self.prior == "uniform":
            return np.zeros(len(counts))
        logs: np.ndarray = np.log((counts + 1) / (len(support) + len(counts)))
        return logs

    def _head(self) -> Head:
        head = self.over_zero_shot(self.at("alpha"), self.state_["weights"], self.state_["bias"])
        return replace(head, bias=head.bias + self.state_["prior"])


def whitened(rows: np.ndarray, labels: np.ndarray, means: np.ndarray, right: np.ndarray) -> np.ndarray | None:
    """`right` [c, d] times (S + tr(S) / (n - 1) I)^-1, f64 [c, d], S the covariance of rows [n, d] around the means of
    their labels. None where there is no variance."""
    n, d = rows.shape
    if n < d:  # (X'X + r I)^-1 = (I - X' (X X' + r I)^-1 X) / r
        centred = rows - means[labels]
        gram, energy = centred @ centred.T, float(np.einsum("nd,nd->", rows, rows, dtype=np.float64))
    else:
        gram, energy = np.zeros((d, d)), 0.0
        for at in _blocks(n):
            centred = rows[at] - means[labels[at]]
            gram += centred.T @ centred
            energy += float(np.einsum("nd,nd->", rows[at], rows[at], dtype=np.float64))
    trace = float(np.trace(gram))
    if n < 2 or trace <= _FLAT * energy:
        return None
    ridge = trace / (n - 1)
    gram[np.diag_indices_from(gram)] += ridge
    factor = cho_factor(gram, lower=True, overwrite_a=True)
    inverse: np.ndarray
    if n < d:
        inverse = (right - cho_solve(factor, centred @ right.T).T @ centred) / ridge
    else:
        inverse = cho_solve(factor, right.T).T
    inverse *= n - 1
    return inverse


def _means(rows: np.ndarray, labels: np.ndarray, classes: int) -> np.ndarray:
    """The mean of each class's rows [n, d], f64 [classes, d]; zeros for a class without any."""
    counts = np.bincount(labels, minlength=classes)
    means: np.ndarray = class_sums(rows, labels, classes) / np.maximum(counts, 1)[:, None]
    return means


def _nearest(support: Samples, label: int) -> tuple[np.ndarray, np.ndarray]:
    """What stands for a class without images: samples nearest to its text, f32 [k, d], and their centre, f64 [d]."""
    assert support.features is not None
    task = support.task
    closeness = product(support.features.joint, task.text[label : label + 1])[:, 0]
    samples = support.features.of(task.space)[np.argsort(-closeness, kind="stable")[:_NEAREST]]
    centre = task.text[label] if task.space == JOINT else samples.mean(axis=0, dtype=np.float64)
    return samples, centre.astype(np.float64)


def _posterior(support: Samples) -> float:
    """What makes the Gaussians' logits those of a new image: for S and for means that were estimated."""
    images, classes = len(support), np.count_nonzero(support.counts)
    return float((images - classes) / (images + classes))


def _alike(support: Samples, own: np.ndarray, seen: np.ndarray) -> float:
    """What makes logits `own` [c, C], at the means of classes `seen` [c], spread as zero-shot logits do there; 0 where
    they don't spread."""
    assert support.features is not None
    task = support.task
    joint = _means(support.features.joint, np.repeat(support.labels, support.views), len(support.counts))
    spread = own.std(axis=1).mean()
    return float(task.scale * (joint[seen] @ task.text.T).std(axis=1).mean() / spread) if spread > 0 else 0.0


def _blocks(n: int) -> Iterator[slice]:
    return (slice(start, start + _BLOCK) for start in range(0, n, _BLOCK))
