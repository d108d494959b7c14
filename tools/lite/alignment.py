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

TEMPLATES = ("{}", "a photo of a {}", "a picture of a {}, an object", "the {}")  # whose mean over the classes is mu_q
HYPERNYMS = 0.5  # weight of the ancestors beside the class's own text
RARE = 1.0  # an ancestor counts when ln(1000 / classes under it) exceeds this: "entity" says nothing
RIDGE = 0.1  # of the largest eigenvalue, added before whitening
WHITENING = -0.25  # power of the covariance: half of full whitening


@dataclass(frozen=True)
class Head:
    """class_map: [1000, 384], one text direction an ImageNet class, long where texts are sparse. text_mean: [384].

    whitening: [384, 384]. A text e becomes norm(norm(e - text_mean) @ whitening), class probabilities p norm(p @ class_map).
    """

    class_map: np.ndarray
    text_mean: np.ndarray
    whitening: np.ndarray


def build_head(embed: Embed, names: Sequence[str], wnids: Sequence[str], nouns: dict[str, Synset]) -> Head:
    """The head of 1000 classes from their names and their WordNet synsets, all in float64."""
    own = _class_texts(embed, names, wnids, nouns)
    points = unit(own + HYPERNYMS * _ancestor_texts(embed, wnids, nouns))
    centred = points - points.mean(0)
    eigenvalues, vectors = np.linalg.eigh(centred.T @ centred / len(centred))
    whitening = (vectors * (eigenvalues + RIDGE * eigenvalues.max()) ** WHITENING) @ vectors.T
    directions = unit(unit(centred) @ whitening)
    # classes crowd in places (a hundred dogs): without this their sum outweighs a lone class
    similar = np.maximum(unit(centred) @ unit(centred).T, 0.0)
    density = (similar**2).sum(1) ** -0.5
    named = sum(embed([template.format(name) for name in names]) for template in TEMPLATES)
    return Head(directions * (density / density.mean())[:, None], unit(named).mean(0), whitening)


def detail_basis(classifier: np.ndarray, width: int) -> np.ndarray:
    """The directions of backbone features that classes differ in most: [features, width] from weights [classes, features].

    Half whitened, so that the few strongest ones don't drown the rest. A singular vector's sign is free: fixed here.
    """
    _, strengths, directions = np.linalg.svd(classifier - classifier.mean(0), full_matrices=False)
    basis = directions[:width].T
    signs = np.sign(np.take_along_axis(basis, np.abs(basis).argmax(0)[None], axis=0))
    return basis * signs * (strengths[:width] / strengths[0]) ** -0.5


def unit(rows: np.ndarray) -> np.ndarray:
    """Rows scaled to length 1."""
    scaled: np.ndarray = rows / np.linalg.norm(rows, axis=-1, keepdims=True)
    return scaled


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
