"""Prototypical networks (Snell, Swersky and Zemel, 2017, "Prototypical Networks for Few-shot Learning").

The prototype of class k is the mean of its embedded support examples, c_k = 1/K Σ f(x_i), and
p(y = k | x) = softmax_k(-s · ||f(x) - c_k||²), equations 1 and 2 of the paper. By default embeddings are first scaled
to unit norm and s is a constant, which suits pretrained sentence encoders; ``normalize: false`` with ``scale: 1`` is
the form of the paper. With ``distance: cosine`` the logits are τ · cos(f(x), c_k), and τ is learned, starting at
``scale`` (Chen et al. 2021, "Meta-Baseline", equation 2).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from nas_meta.learners.metric import MetricLearner, MetricOptions
from nas_meta.models.encoder import Encoder

DISTANCES = ("euclidean", "cosine")


class ProtoNetOptions(MetricOptions):
    """Options of the prototypical network."""

    distance: Literal["euclidean", "cosine"] = Field(
        "euclidean", description="squared Euclidean distance, or cosine similarity with a learned temperature"
    )
    evaluation_distance: Literal["euclidean", "cosine", "auto"] | None = Field(
        None,
        description="distance of evaluation if it differs from that of the training; auto is the one that is better on "
        "meta-validation; by default the same",
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


class ProtoNet(MetricLearner):
    """Prototypical network: classifies by the nearest class mean in embedding space."""

    Options = ProtoNetOptions

    def learned(self, encoder: Encoder, ways: int) -> nn.Module:
        module = super().learned(encoder, ways)
        if self.options.distance == "cosine":
            module.temperature = nn.Parameter(torch.tensor(self.options.scale))
        return module

    def optional(self, name: str) -> bool:
        return name == "temperature" or super().optional(name)  # it scales logits, and never changes a prediction

    def forms(self) -> Sequence[str]:
        wanted = self.options.evaluation_distance or self.options.distance
        return DISTANCES if wanted == "auto" else (wanted,)

    @property
    def training_form(self) -> int:
        return DISTANCES.index(self.options.distance) if len(self.forms()) > 1 else 0

    def logits(self, encoder: Encoder, support: Tensor, query: Tensor) -> Tensor:
        return self.evaluation_logits(encoder, support, query, self.options.distance)

    def evaluation_logits(self, encoder: Encoder, support: Tensor, query: Tensor, form: str) -> Tensor:
        if form == "cosine":
            scale = getattr(encoder.learned, "temperature", self.options.scale)
            return cosine_logits(support, query, scale)
        if self.options.normalize:
            support, query = F.normalize(support, dim=-1), F.normalize(query, dim=-1)
        return prototype_logits(support, query, self.options.scale)
