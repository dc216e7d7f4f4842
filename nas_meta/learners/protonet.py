"""Prototypical networks (Snell, Swersky and Zemel, 2017, "Prototypical Networks for Few-shot Learning").

The prototype of class k is the mean of its embedded support examples, c_k = 1/K Σ f(x_i), and
p(y = k | x) = softmax_k(-s · ||f(x) - c_k||²), equations 1 and 2 of the paper. Embeddings are scaled to unit
length first and s is a constant, which suits pretrained sentence encoders; ``normalize: false`` with
``scale: 1`` is the paper's own form.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from nas_meta.embedding import Encoder
from nas_meta.learners.base import Learner, LearnerOptions, accuracy, embed_distinct
from nas_meta.tasks.episodes import Episode
from nas_meta.tasks.pool import Pool


class ProtoNetOptions(LearnerOptions):
    """Options of the prototypical network."""

    normalize: bool = Field(True, description="scale embeddings to unit length before the distance")
    scale: float = Field(10.0, gt=0, description="factor s of the squared distance")


def prototype_logits(support: Tensor, query: Tensor, scale: float = 1.0) -> Tensor:
    """-s · ||query - prototype||².

    Args:
        support: ``[N, K, D]`` embeddings, row n of class n.
        query: ``[M, D]`` embeddings.

    Returns:
        ``[M, N]``.
    """
    prototypes = support.mean(1)
    # ||a - b||² = ||a||² - 2ab + ||b||²: unlike torch.cdist it has a second derivative everywhere.
    squared = query.square().sum(1, keepdim=True) - 2 * query @ prototypes.T + prototypes.square().sum(1)
    return -scale * squared


class ProtoNet(Learner):
    """Prototypical network: classify by the nearest class mean in the space of embeddings."""

    Options = ProtoNetOptions

    def meta_loss(self, encoder: Encoder, pool: Pool, episode: Episode) -> Tensor:
        z = encoder.embed(pool, episode.indices)
        return F.cross_entropy(self._logits(z, episode), torch.from_numpy(episode.labels).to(z.device))

    def classify(self, encoder: Encoder, pool: Pool, episode: Episode) -> Tensor:
        with torch.inference_mode():
            return self._logits(encoder.embed(pool, episode.indices), episode)

    def accuracies(self, encoder: Encoder, pool: Pool, tasks: Sequence[Episode]) -> np.ndarray:
        z, position = embed_distinct(encoder, pool, tasks)
        z = z.cpu()
        return np.array([accuracy(self._logits(z[torch.from_numpy(position[t.indices])], t), t) for t in tasks])

    def _logits(self, z: Tensor, episode: Episode) -> Tensor:
        if self.options.normalize:
            z = F.normalize(z, dim=-1)
        ways, shots = episode.support.shape
        return prototype_logits(z[: ways * shots].view(ways, shots, -1), z[ways * shots :], self.options.scale)
