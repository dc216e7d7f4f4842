"""Heads that are learned once, after the training: an affine map of the embeddings, fitted on meta-train.

A head maps the embedding z of a text to (z / ||z|| - m) M, and a metric learner then compares the mapped embeddings.

- **whitening**: M = Σ^(-1/2) with the covariance Σ of embeddings within their classes, shrunk towards a multiple of the
  identity, and m is the mean of all embeddings. Directions in which examples of one class differ then count less (the
  pooled covariance of Mahalanobis distances). Closed form.
- **linear**: M minimises the learner's own loss over episodes of cached embeddings, starting from the identity; m = 0.

Embeddings are computed once and no gradient flows into the encoder, so a head takes seconds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas_meta.tasks.episodes import Episode, EpisodeShape, episode
from nas_meta.tasks.pool import Pool

NONE, WHITENING, LINEAR = HEADS = ("none", "whitening", "linear")
STEPS = 100  # training steps of a linear head
RATE = 3e-4  # its largest learning rate
SHRINKAGE = 0.85  # best on meta-validation of BANKING77 and ICD-10-CM; Ledoit and Wolf's is about 0.02 there
TRAIN_WAYS, TRAIN_QUERIES = 20, 3  # shape of the episodes that a linear head is trained on
LEAST_VARIANCE = 1e-6  # of a direction, relative to the mean over all directions


class Head(nn.Module):
    """An affine map of embeddings; the identity until it is fitted.

    Buffers rather than parameters hold the map, so that meta-training leaves it alone.

    Args:
        width: D, the length of an embedding.
    """

    mean: Tensor
    matrix: Tensor
    kind: Tensor

    def __init__(self, width: int):
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("matrix", torch.eye(width))
        self.register_buffer("kind", torch.tensor(0))  # index into HEADS

    @property
    def name(self) -> str:
        """Which of :data:`HEADS` this is."""
        return HEADS[int(self.kind)]

    def forward(self, z: Tensor) -> Tensor:
        """Map embeddings.

        Args:
            z: ``[..., D]``.

        Returns:
            ``[..., D]``; the embeddings themselves if no head is fitted.
        """
        return z if self.name == NONE else apply(Map(self.mean, self.matrix), z)

    def set(self, name: str, fitted: Map | None) -> None:
        """Take over a map.

        Args:
            name: One of :data:`HEADS`.
            fitted: The map; None for ``none``.
        """
        if fitted is not None:
            self.mean.copy_(fitted.mean)
            self.matrix.copy_(fitted.matrix)
        self.kind.fill_(HEADS.index(name))


@dataclass(frozen=True)
class Map:
    """An affine map of embeddings of unit length.

    Attributes:
        mean: m ``[D]``.
        matrix: M ``[D, D]``.
    """

    mean: Tensor
    matrix: Tensor


def apply(fitted: Map, z: Tensor) -> Tensor:
    """Compute (z / ||z|| - m) M.

    Args:
        fitted: The map.
        z: ``[..., D]`` embeddings.

    Returns:
        ``[..., D]``.
    """
    return (F.normalize(z, dim=-1) - fitted.mean) @ fitted.matrix


def whitening(z: Tensor, labels: np.ndarray, shrinkage: float | None = SHRINKAGE) -> Map:
    """Fit the whitening of the covariance within classes.

    Args:
        z: ``[examples, D]`` embeddings.
        labels: ``[examples]``, the class of each.
        shrinkage: Weight of the multiple of the identity, from 0 to 1; None computes it (Ledoit and Wolf 2004, "A
            well-conditioned estimator for large-dimensional covariance matrices").

    Returns:
        The map.
    """
    from sklearn.covariance import ledoit_wolf

    unit = F.normalize(z.double(), dim=-1).cpu()
    _, index = np.unique(labels, return_inverse=True)
    classes = torch.from_numpy(index)
    sums = torch.zeros(int(classes.max()) + 1, unit.shape[1], dtype=unit.dtype).index_add_(0, classes, unit)
    means = sums / torch.bincount(classes)[:, None]
    within = (unit - means[classes]).numpy()
    freedom = max(1, len(within) - len(means))
    covariance = within.T @ within / freedom
    if shrinkage is None:
        shrinkage = float(ledoit_wolf(within, assume_centered=True)[1])
    scale = float(np.trace(covariance)) / len(covariance)
    shrunk = (1 - shrinkage) * covariance + shrinkage * scale * np.eye(len(covariance))
    values, vectors = np.linalg.eigh(shrunk)
    # Scaled by the mean variance: a head changes the directions of embeddings, not their size on average.
    roots = np.sqrt(scale / np.maximum(values, LEAST_VARIANCE * max(scale, 1e-12))) if scale else np.ones(len(values))
    matrix = torch.from_numpy(vectors * roots @ vectors.T)
    return Map(unit.mean(0).to(z), matrix.to(z))


def linear(
    z: Tensor, pool: Pool, logits: Callable[[Tensor, Tensor], Tensor], shape: EpisodeShape, seed: int,
    steps: int = STEPS,
) -> Map:  # fmt: skip
    """Train a linear map over episodes of embeddings, with Adam and a rate that falls to zero.

    Args:
        z: ``[examples, D]`` embeddings of the examples of ``pool``.
        pool: The examples.
        logits: The learner's logits ``[M, N]`` of support embeddings ``[N, K, D]`` and query embeddings ``[M, D]``.
        shape: Shape of the episodes.
        seed: Seed of the episodes.
        steps: Number of steps.

    Returns:
        The map.
    """
    z = F.normalize(z, dim=-1)
    identity = torch.eye(z.shape[1], dtype=z.dtype, device=z.device)
    matrix = identity.clone().requires_grad_()
    optimizer = torch.optim.Adam([matrix], lr=RATE)
    for step in range(steps):
        task = episode(pool, shape, seed, step)
        loss = F.cross_entropy(logits(*parts(z @ matrix, task)), torch.from_numpy(task.labels).to(z.device))
        [matrix.grad] = torch.autograd.grad(loss, [matrix])
        optimizer.param_groups[0]["lr"] = RATE * (1 - step / steps)
        optimizer.step()
    return Map(torch.zeros_like(z[0]), matrix.detach())


def parts(z: Tensor, task: Episode) -> tuple[Tensor, Tensor]:
    """Return the support and the query embeddings of an episode.

    Args:
        z: ``[examples, D]`` embeddings of a pool.
        task: The episode.

    Returns:
        ``[N, K, D]`` and ``[N*Q, D]``.
    """
    return z[torch.from_numpy(task.support)], z[torch.from_numpy(task.query.ravel())]
