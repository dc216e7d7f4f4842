"""Prototypical networks (Snell, Swersky and Zemel, 2017, "Prototypical Networks for Few-shot Learning").

The prototype of class k is the mean of its embedded support examples, c_k = 1/K Σ f(x_i), and
p(y = k | x) = softmax_k(-s · ||f(x) - c_k||²), equations 1 and 2 of the paper. By default embeddings are first scaled
to unit norm and s is a constant, which suits pretrained sentence encoders; ``normalize: false`` with ``scale: 1`` is
the form of the paper. With ``distance: cosine`` the logits are τ · cos(f(x), c_k), and τ is learned, starting at
``scale`` (Chen et al. 2021, "Meta-Baseline", equation 2).
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from nas_meta.learners.base import LearnerOptions
from nas_meta.learners.metric import MetricLearner
from nas_meta.models.encoder import Encoder

SUPPORT_WEIGHT = 3.0  # weight of a labelled example when unlabelled ones refine prototypes


class ProtoNetOptions(LearnerOptions):
    """Options of the prototypical network."""

    distance: Literal["euclidean", "cosine"] = Field(
        "euclidean", description="squared Euclidean distance, or cosine similarity with a learned temperature"
    )
    normalize: bool = Field(True, description="scale embeddings to unit norm before the Euclidean distance")
    scale: float = Field(
        10.0, gt=0, description="factor s of the squared distance, or initial temperature τ of the cosine similarity"
    )


def prototype_logits(support: Tensor, query: Tensor, scale: float = 1.0) -> Tensor:
    """Compute -s · ||query - prototype||² for every class.

    Args:
        support: ``[N, K, D]`` embeddings, row n of class n.
        query: ``[M, D]`` embeddings.
        scale: s.

    Returns:
        ``[M, N]``.
    """
    prototypes = support.mean(1)
    # ||a - b||² = ||a||² - 2ab + ||b||² has a second derivative everywhere, unlike torch.cdist.
    squared = query.square().sum(1, keepdim=True) - 2 * query @ prototypes.T + prototypes.square().sum(1)
    return -scale * squared


def cosine_logits(support: Tensor, query: Tensor, scale: Tensor | float = 1.0) -> Tensor:
    """Compute τ · cos(query, prototype) for every class.

    Args:
        support: ``[N, K, D]`` embeddings, row n of class n.
        query: ``[M, D]`` embeddings.
        scale: τ.

    Returns:
        ``[M, N]``.
    """
    return scale * F.normalize(query, dim=-1) @ F.normalize(support.mean(1), dim=-1).T


def class_means(features: Tensor, weights: Tensor) -> Tensor:
    """Compute the weighted mean of the features of every class.

    Args:
        features: ``[M, D]``.
        weights: ``[M, N]``, weight of each example in each class.

    Returns:
        ``[N, D]``.
    """
    return weights.T @ features / weights.sum(0)[:, None]


class ProtoNet(MetricLearner):
    """Prototypical network: classifies by the nearest class mean in embedding space."""

    Options = ProtoNetOptions

    def learned(self, encoder: Encoder, ways: int) -> nn.Module:
        module = super().learned(encoder, ways)
        if self.options.distance == "cosine":
            module.temperature = nn.Parameter(torch.tensor(self.options.scale))
        return module

    def logits(self, encoder: Encoder, support: Tensor, query: Tensor) -> Tensor:
        if self.options.distance == "cosine":
            return cosine_logits(support, query, encoder.learned.temperature)
        if self.options.normalize:
            support, query = F.normalize(support, dim=-1), F.normalize(query, dim=-1)
        return prototype_logits(support, query, self.options.scale)

    def task_logits(self, encoder: Encoder, support: Tensor, labels: Tensor, ways: int, query: Tensor) -> Tensor:
        return self.prototype_logits(encoder, self.prototypes(support, labels, ways), query)

    def prototypes(self, support: Tensor, labels: Tensor, ways: int) -> Tensor:
        """Compute the prototype of every class; classes may differ in size.

        Args:
            support: ``[S, D]`` embeddings.
            labels: ``[S]``, the class of each, from 0 to ``ways`` - 1; every class occurs.
            ways: N, the number of classes.

        Returns:
            ``[N, D]``.
        """
        return class_means(self.features(support), F.one_hot(labels, ways).to(support.dtype))

    def features(self, z: Tensor) -> Tensor:
        """Return embeddings ``[M, D]`` as prototypes average them: of unit norm under ``normalize``."""
        normalized = self.options.distance == "euclidean" and self.options.normalize
        return F.normalize(z, dim=-1) if normalized else z

    def prototype_logits(self, encoder: Encoder, prototypes: Tensor, query: Tensor) -> Tensor:
        """Compute the logits of query embeddings ``[M, D]`` from prototypes ``[N, D]``.

        Args:
            encoder: The encoder, with the temperature of the cosine similarity.
            prototypes: What :meth:`prototypes` returned.
            query: ``[M, D]`` embeddings.

        Returns:
            ``[M, N]``.
        """
        if self.options.distance == "cosine":
            return cosine_logits(prototypes[:, None], query, encoder.learned.temperature)
        return prototype_logits(prototypes[:, None], self.features(query), self.options.scale)

    def refined(
        self, encoder: Encoder, support: Tensor, labels: Tensor, ways: int, unlabelled: Tensor, steps: int = 10
    ) -> Tensor:
        """Refine the prototypes with unlabelled examples: soft k-means (Ren et al. 2018, equations 3 and 4).

        c_k = (w Σ_support,k f(x) + Σ_unlabelled p_k(x) f(x)) / (w n_k + Σ p_k(x)), where p is the softmax of the logits
        at the previous prototypes. In the paper w = 1. A larger w, and prototypes of unit norm where examples have unit
        norm, keep a class with few unlabelled examples from moving to those of other classes; w = 3 was chosen on the
        meta-validation classes of BANKING77.

        Args:
            encoder: The encoder.
            support: ``[S, D]`` embeddings.
            labels: ``[S]``, the class of each.
            ways: N, the number of classes.
            unlabelled: ``[U, D]`` embeddings.
            steps: Number of updates.

        Returns:
            ``[N, D]`` prototypes.
        """
        hard = F.one_hot(labels, ways).to(support.dtype)
        prototypes = class_means(self.features(support), hard)
        features = torch.cat([self.features(support), self.features(unlabelled)])
        for _ in range(steps):
            soft = self.prototype_logits(encoder, prototypes, unlabelled).softmax(-1)
            # Features of unit norm have prototypes of unit norm.
            prototypes = self.features(class_means(features, torch.cat([SUPPORT_WEIGHT * hard, soft])))
        return prototypes
