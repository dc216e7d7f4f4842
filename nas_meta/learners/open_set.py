"""Scores that tell whether a text belongs to any class of a support set, and the measures of such scores.

A score is higher for examples that belong to a class ("in scope"). All scores compare embeddings ``[M, D]`` with a
support set ``[S, D]``; embeddings are scaled to unit norm first. Without torch, because classifiers of ONNX folders use
this, too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

Score = Callable[[np.ndarray, np.ndarray, int, "np.ndarray | None"], np.ndarray]
SCALE = 10.0  # of the squared distance to a prototype, as the prototypical network has it by default


def prototype_cosines(support: np.ndarray, labels: np.ndarray, ways: int, query: np.ndarray | None) -> np.ndarray:
    """Compute the cosine of each query to each class mean.

    Without queries every support example is compared with the means of all *other* support examples (leave-one-out),
    in O(S·N): the sum of its own class loses one term. A class of one example has no such mean: -1.

    Example: in a class of ``a`` and ``b``, the cosine of ``a`` to its own class is that of ``a`` and ``b``.

    Args:
        support: ``[S, D]`` embeddings.
        labels: ``[S]``, the class of each, from 0 to ``ways`` - 1.
        ways: N, the number of classes.
        query: ``[M, D]`` embeddings; None for leave-one-out.

    Returns:
        ``[M, N]``, or ``[S, N]`` for leave-one-out.
    """
    z = unit(support)
    sums = np.eye(ways, dtype=z.dtype)[labels].T @ z
    cosines = (z if query is None else unit(query)) @ unit(sums).T
    if query is None:
        own = (z * unit(sums[labels] - z)).sum(1)
        own[np.bincount(labels, minlength=ways)[labels] < 2] = -1.0
        cosines[np.arange(len(z)), labels] = own
    return cosines


def largest_cosine(support: np.ndarray, labels: np.ndarray, ways: int, query: np.ndarray | None) -> np.ndarray:
    """Return the cosine of each query to the nearest class mean, ``[M]``; arguments as above."""
    return prototype_cosines(support, labels, ways, query).max(1)


def nearest_cosine(support: np.ndarray, labels: np.ndarray, ways: int, query: np.ndarray | None) -> np.ndarray:
    """Return the cosine of each query to the nearest support example, ``[M]``; arguments as above."""
    z = unit(support)
    cosines = (z if query is None else unit(query)) @ z.T
    if query is None:
        np.fill_diagonal(cosines, -1.0)
    return cosines.max(1)


def softmax_probability(support: np.ndarray, labels: np.ndarray, ways: int, query: np.ndarray | None) -> np.ndarray:
    """Return the largest softmax probability of a prototypical network, ``[M]``; arguments as above."""
    logits = -SCALE * _squared_distances(support, labels, ways, query)
    return np.exp(logits.max(1) - np.logaddexp.reduce(logits, axis=1))


def energy(support: np.ndarray, labels: np.ndarray, ways: int, query: np.ndarray | None) -> np.ndarray:
    """Return the negative energy, log Σ exp of the logits (Liu et al. 2020), ``[M]``; arguments as above."""
    return np.logaddexp.reduce(-SCALE * _squared_distances(support, labels, ways, query), axis=1)


def _squared_distances(support: np.ndarray, labels: np.ndarray, ways: int, query: np.ndarray | None) -> np.ndarray:
    """Return squared distances ``[M, N]`` of unit embeddings to class means, leave-one-out without queries."""
    z = unit(support)
    counts = np.bincount(labels, minlength=ways).astype(z.dtype)
    sums = np.eye(ways, dtype=z.dtype)[labels].T @ z
    means = sums / counts[:, None]
    q = z if query is None else unit(query)
    squared = 1 - 2 * q @ means.T + np.square(means).sum(1)
    if query is None:
        others = (sums[labels] - z) / np.maximum(counts[labels] - 1, 1)[:, None]
        squared[np.arange(len(z)), labels] = np.square(z - others).sum(1)
    return squared


def unit(z: np.ndarray) -> np.ndarray:
    """Scale vectors ``[..., D]`` to unit norm, as ``torch.nn.functional.normalize`` does."""
    return z / np.maximum(np.linalg.norm(z, axis=-1, keepdims=True), 1e-12)


SCORES: dict[str, Score] = {
    "largest cosine": largest_cosine,
    "nearest example": nearest_cosine,
    "softmax probability": softmax_probability,
    "energy": energy,
}
DEFAULT = "largest cosine"  # the best in benchmarks/README.md, "None of these"


@dataclass(frozen=True)
class Units:
    """Standard units of a task's scores, from its support set alone, in which thresholds transfer between tasks.

    Attributes:
        own: ``[n]``, leave-one-out scores of the support examples whose class has others.
        location: Their mean; with fewer than two of them, the mean cosine m of examples of different classes.
        scale: Their standard deviation; with fewer than two of them, 1 - m.
    """

    own: np.ndarray
    location: float
    scale: float

    @property
    def left_out(self) -> bool:
        """Whether the units are those of leave-one-out scores."""
        return len(self.own) > 1

    def standardised(self, scores: np.ndarray) -> np.ndarray:
        """Return scores in these units; without leave-one-out scores 0 is as unlike as another class, and 1 equal."""
        return (scores - self.location) / self.scale


def units_of(support: np.ndarray, labels: np.ndarray, ways: int) -> Units:
    """Return the standard units of a task.

    Args:
        support: ``[S, D]`` embeddings.
        labels: ``[S]``, the class of each, from 0 to ``ways`` - 1; every class occurs, and there are at least two.
        ways: N, the number of classes.
    """
    own = SCORES[DEFAULT](support, labels, ways, None).astype(np.float64)
    own = own[np.bincount(labels, minlength=ways)[labels] > 1]
    if len(own) > 1:
        return Units(own, float(own.mean()), max(float(own.std()), 1e-6))
    cosines = prototype_cosines(support, labels, ways, support).astype(np.float64)
    mean = float(cosines[~np.eye(ways, dtype=bool)[labels]].mean())
    return Units(own, mean, max(1 - mean, 1e-6))


def auroc(inside: np.ndarray, outside: np.ndarray) -> float:
    """Compute the area under the ROC curve: the chance that an example in scope has the higher score.

    Ties count half (Mann and Whitney, 1947).

    Args:
        inside: Scores of examples in scope.
        outside: Scores of other examples.

    Returns:
        From 0 to 1; 0.5 is chance.
    """
    _, index, counts = np.unique(np.concatenate([inside, outside]), return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[index]
    wins = ranks[: len(inside)].sum() - len(inside) * (len(inside) + 1) / 2
    return float(wins / (len(inside) * len(outside)))


def fpr95(inside: np.ndarray, outside: np.ndarray) -> float:
    """Return the share of other examples that are accepted where 95 % of the examples in scope are; lower is better."""
    return float((outside >= np.quantile(inside, 0.05, method="lower")).mean())


def conformal_threshold(scores: np.ndarray, refuse: float) -> float:
    """Return the threshold below which at most a share of exchangeable scores falls (split conformal prediction).

    The k-th smallest of n scores with k = ⌊refuse · (n + 1)⌋: a new score is below it with probability at most
    ``refuse``, whatever their distribution. Example: of 39 scores and ``refuse`` 0.05, the second smallest.

    Args:
        scores: ``[n]`` scores of examples in scope.
        refuse: The share, from 0 to 1.

    Returns:
        The threshold; -∞, which refuses nothing, where n is smaller than 1 / ``refuse`` - 1.
    """
    k = int(refuse * (len(scores) + 1) + 1e-9)
    return -np.inf if k < 1 else float(np.sort(scores)[k - 1])
