"""Scores that tell whether a text belongs to any class of a support set, and the measures of such scores.

A score is higher for examples that belong to a class ("in scope"). All scores compare embeddings ``[M, D]`` with a
support set ``[S, D]``; embeddings are scaled to unit norm first.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

Score = Callable[[Tensor, Tensor, int, "Tensor | None"], Tensor]
SCALE = 10.0  # of the squared distance to a prototype, as the prototypical network has it by default


def prototype_cosines(support: Tensor, labels: Tensor, ways: int, query: Tensor | None) -> Tensor:
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
    z = F.normalize(support, dim=-1)
    sums = F.one_hot(labels, ways).to(z.dtype).T @ z
    cosines = F.normalize(z if query is None else query, dim=-1) @ F.normalize(sums, dim=-1).T
    if query is None:
        own = (z * F.normalize(sums[labels] - z, dim=-1)).sum(1)
        own[torch.bincount(labels, minlength=ways)[labels] < 2] = -1.0
        cosines[torch.arange(len(z), device=z.device), labels] = own
    return cosines


def largest_cosine(support: Tensor, labels: Tensor, ways: int, query: Tensor | None) -> Tensor:
    """Return the cosine of each query to the nearest class mean, ``[M]``; arguments as above."""
    return prototype_cosines(support, labels, ways, query).amax(1)


def nearest_cosine(support: Tensor, labels: Tensor, ways: int, query: Tensor | None) -> Tensor:
    """Return the cosine of each query to the nearest support example, ``[M]``; arguments as above."""
    z = F.normalize(support, dim=-1)
    cosines = F.normalize(z if query is None else query, dim=-1) @ z.T
    if query is None:
        cosines.fill_diagonal_(-1.0)
    return cosines.amax(1)


def _squared_distances(support: Tensor, labels: Tensor, ways: int, query: Tensor | None) -> Tensor:
    """Return squared distances ``[M, N]`` of unit embeddings to class means, leave-one-out without queries."""
    z = F.normalize(support, dim=-1)
    counts = torch.bincount(labels, minlength=ways).to(z.dtype)
    sums = F.one_hot(labels, ways).to(z.dtype).T @ z
    means = sums / counts[:, None]
    q = z if query is None else F.normalize(query, dim=-1)
    squared = 1 - 2 * q @ means.T + means.square().sum(1)
    if query is None:
        others = (sums[labels] - z) / (counts[labels] - 1).clamp(min=1)[:, None]
        squared[torch.arange(len(z), device=z.device), labels] = (z - others).square().sum(1)
    return squared


def softmax_probability(support: Tensor, labels: Tensor, ways: int, query: Tensor | None) -> Tensor:
    """Return the largest softmax probability of a prototypical network, ``[M]``; arguments as above."""
    return (-SCALE * _squared_distances(support, labels, ways, query)).softmax(1).amax(1)


def energy(support: Tensor, labels: Tensor, ways: int, query: Tensor | None) -> Tensor:
    """Return the negative energy, log Σ exp of the logits (Liu et al. 2020), ``[M]``; arguments as above."""
    return (-SCALE * _squared_distances(support, labels, ways, query)).logsumexp(1)


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


def units_of(support: Tensor, labels: Tensor, ways: int) -> Units:
    """Return the standard units of a task.

    Args:
        support: ``[S, D]`` embeddings.
        labels: ``[S]``, the class of each, from 0 to ``ways`` - 1; every class occurs, and there are at least two.
        ways: N, the number of classes.
    """
    own = SCORES[DEFAULT](support, labels, ways, None).cpu().double().numpy()
    counts = torch.bincount(labels, minlength=ways).cpu().numpy()
    own = own[counts[labels.cpu().numpy()] > 1]
    if len(own) > 1:
        return Units(own, float(own.mean()), max(float(own.std()), 1e-6))
    cosines = prototype_cosines(support, labels, ways, support).cpu().double()
    different = ~F.one_hot(labels.cpu(), ways).bool()
    mean = float(cosines[different].mean())
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
