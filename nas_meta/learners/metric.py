"""The base class of metric learners, which classify from embeddings and do not change the encoder on a support set."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from nas_meta.learners.base import Learner, accuracy, embed_distinct
from nas_meta.learners.support import balanced_rows
from nas_meta.models.encoder import Encoder
from nas_meta.tasks.episodes import Episode
from nas_meta.tasks.pool import Pool


class MetricLearner(Learner):
    """A learner that compares query embeddings with support embeddings.

    Subclasses define :meth:`logits`. For evaluation, every distinct example of all episodes is embedded only once.
    """

    @abstractmethod
    def logits(self, encoder: Encoder, support: Tensor, query: Tensor) -> Tensor:
        """Compute the logits of query examples from embeddings.

        Args:
            encoder: The encoder; the learner's own parameters are in ``encoder.learned``.
            support: ``[N, K, D]`` embeddings, row n of class n.
            query: ``[M, D]`` embeddings.

        Returns:
            ``[M, N]``.
        """

    def task_logits(self, encoder: Encoder, support: Tensor, labels: Tensor, ways: int, query: Tensor) -> Tensor:
        """Compute the logits of query examples from a support set whose classes may differ in size.

        By default the examples of smaller classes are repeated in turn until all classes are equally large.

        Args:
            encoder: The encoder; the learner's own parameters are in ``encoder.learned``.
            support: ``[S, D]`` embeddings.
            labels: ``[S]``, the class of each support example, from 0 to ``ways`` - 1; every class occurs.
            ways: N, the number of classes.
            query: ``[M, D]`` embeddings.

        Returns:
            ``[M, N]``.
        """
        rows = torch.from_numpy(balanced_rows(labels.cpu().numpy(), ways)).to(support.device)
        return self.logits(encoder, support[rows], query)

    def meta_loss(self, encoder: Encoder, pool: Pool, episode: Episode) -> Tensor:
        z = encoder.embed(pool, episode.indices)
        return F.cross_entropy(self._logits(encoder, z, episode), torch.from_numpy(episode.labels).to(z.device))

    def classify(self, encoder: Encoder, pool: Pool, episode: Episode) -> Tensor:
        with torch.inference_mode():
            return self._logits(encoder, encoder.embed(pool, episode.indices), episode)

    def accuracies(self, encoder: Encoder, pool: Pool, tasks: Sequence[Episode]) -> np.ndarray:
        z, position = embed_distinct(encoder, pool, tasks)
        with torch.inference_mode():
            return np.array([accuracy(self._logits(encoder, z[position[t.indices]], t), t) for t in tasks])

    def _logits(self, encoder: Encoder, z: Tensor, episode: Episode) -> Tensor:
        """Compute the logits from the embeddings of an episode's examples, in the order of ``episode.indices``."""
        ways, shots = episode.support.shape
        return self.logits(encoder, z[: ways * shots].view(ways, shots, -1), z[ways * shots :])
