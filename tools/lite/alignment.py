"""The head that joins the two networks without training: ImageNet's classes, read as text, are the bridge.

As in ConSE (Norouzi et al., 2013) an image is the mixture of class texts that its class probabilities weigh.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from lite.wordnet import Synset, ancestors

Embed = Callable[[Sequence[str]], np.ndarray]

TEMPLATES = (
    "{}",
    "a photo of a {}",
    "a picture of a {}, an object",
    "the {}",
)  # whose mean over the classes is text_mean
HYPERNYMS = 0.5  # weight of the ancestors beside the class's own text
RARE = 1.0  # an ancestor counts when ln(1000 / classes under it) exceeds this: "entity" says nothing
SHRINK = 0.1  # of the largest eigenvalue, added to all before whitening
WHITENING = -0.25  # power of the covariance: half of full whitening
RIDGE = 0.1  # of the largest eigenvalue, in the regression from backbone features to class texts
EVERY = 40  # the nouns of WordNet that stand for what people may ask: one in so many


@dataclass(frozen=True)
class Head:
    """What joins the networks; n = 1000 classes, d = 384 dimensions, f = 1280 backbone features.

    text_mean [d], whitening [d, d]: an embedding e has the direction q = norm(norm(e - text_mean) @ whitening).
    anchors [n, d]: each class's direction. density [n]: its weight, larger where classes are sparse.
    feature_map [f, d]: backbone features to directions. basis [d + n, d]: see `build_head`.
    """

    text_mean: np.ndarray
    whitening: np.ndarray
    anchors: np.ndarray
    density: np.ndarray
    feature_map: np.ndarray
    basis: np.ndarray


def build_head(
    embed: Embed, names: Sequence[str], wnids: Sequence[str], nouns: dict[str, Synset], classifier: np.ndarray
) -> Head:
    """The head for ImageNet's classes, from their names and synsets and the classifier's weights [n, f]; float64.

    A text is described twice: by its direction q, and by its likeness to each class, norm(max(0, q @ anchors.T)^2),
    as in ASIF (Norelli et al., 2023). An image likewise: by a mixture of class directions, and by class probabilities.
    Both descriptions side by side, [d + n], are brought back to d dimensions by the principal axes (`basis`) of what
    people may ask: the class names and a sample of WordNet's nouns.
    """
    points = unit(_class_texts(embed, names, wnids, nouns) + HYPERNYMS * _ancestor_texts(embed, wnids, nouns))
    centred = points - points.mean(0)
    eigenvalues, vectors = np.linalg.eigh(centred.T @ centred / len(centred))
    whitening = (vectors * (eigenvalues + SHRINK * eigenvalues.max()) ** WHITENING) @ vectors.T
    anchors = unit(unit(centred) @ whitening)
    # classes crowd in places (a hundred dogs): without this their sum outweighs a lone class
    density = (np.maximum(unit(centred) @ unit(centred).T, 0.0) ** 2).sum(1) ** -0.5
    named = np.sum([embed([template.format(name) for name in names]) for template in TEMPLATES], axis=0)
    text_mean = unit(named).mean(0)

    asked = [*names, *(nouns[wnid].lemmas[0] for wnid in list(nouns)[::EVERY])]
    directions = unit(unit(embed([f"a photo of a {name}." for name in asked]) - text_mean) @ whitening)
    likeness = unit(np.maximum(directions @ anchors.T, 0.0) ** 2)
    basis = _principal_axes(np.hstack([directions, likeness]), anchors.shape[1])
    return Head(text_mean, whitening, anchors, density / density.mean(), _feature_map(classifier, anchors), basis)


def detail_basis(classifier: np.ndarray, width: int) -> np.ndarray:
    """The directions of features that classes differ in most: [features, width] from weights [classes, features].

    Half whitened, so that the few strongest ones don't drown the rest.
    """
    _, strengths, directions = np.linalg.svd(classifier - classifier.mean(0), full_matrices=False)
    basis: np.ndarray = _signed(directions[:width].T) * (strengths[:width] / strengths[0]) ** -0.5
    return basis


def unit(rows: np.ndarray) -> np.ndarray:
    """Rows scaled to length 1."""
    scaled: np.ndarray = rows / np.linalg.norm(rows, axis=-1, keepdims=True)
    return scaled


def _feature_map(classifier: np.ndarray, anchors: np.ndarray) -> np.ndarray:
    """Ridge regression from each class's weights to its direction, to place what lies between or beyond the classes."""
    weights = classifier - classifier.mean(0)
    gram = weights.T @ weights
    penalty = RIDGE * np.linalg.eigvalsh(gram).max()
    solved: np.ndarray = np.linalg.solve(gram + penalty * np.eye(len(gram)), weights.T @ anchors)
    return solved


def _principal_axes(rows: np.ndarray, width: int) -> np.ndarray:
    """The leading eigenvectors of the uncentred second moment, as columns."""
    _, vectors = np.linalg.eigh(rows.T @ rows)
    return _signed(vectors[:, ::-1][:, :width])


def _signed(columns: np.ndarray) -> np.ndarray:
    """Columns with their largest entry positive: an eigenvector's sign is free, and LAPACKs differ."""
    signed: np.ndarray = columns * np.sign(np.take_along_axis(columns, np.abs(columns).argmax(0)[None], axis=0))
    return signed


def _class_texts(embed: Embed, names: Sequence[str], wnids: Sequence[str], nouns: dict[str, Synset]) -> np.ndarray:
    synsets = [nouns[wnid] for wnid in wnids]
    parents = [ancestors(nouns, wnid)[0] for wnid in wnids]
    rows = (
        embed(names)
        + embed([f"{name}, a kind of {parent.lemmas[0]}" for name, parent in zip(names, parents, strict=True)])
        + embed([", ".join(dict.fromkeys((name, *s.lemmas))) for name, s in zip(names, synsets, strict=True)])
        + embed([f"{name}: {synset.gloss}" for name, synset in zip(names, synsets, strict=True)])
    )
    return unit(rows)


def _ancestor_texts(embed: Embed, wnids: Sequence[str], nouns: dict[str, Synset]) -> np.ndarray:
    """For each class the mean of its ancestors' names, the rarer the weightier: [1000, 384]."""
    paths = [ancestors(nouns, wnid) for wnid in wnids]
    below = Counter(synset.wnid for path in paths for synset in path)
    rows = []
    for path in paths:
        weights = np.log(len(wnids) / np.array([below[synset.wnid] for synset in path]))
        weights[weights <= RARE] = 0.0
        texts = embed([synset.lemmas[0] for synset in path])
        rows.append(weights @ texts / max(weights.sum(), 1e-12))
    return np.array(rows)
