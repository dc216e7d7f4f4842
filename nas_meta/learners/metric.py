"""What learners share that classify from embeddings alone: the encoder does not move on a support set."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from nas_meta.learners.base import Learner, accuracy, embed_distinct
from nas_meta.models.encoder import Encoder
from nas_meta.tasks.episodes import Episode
from nas_meta.tasks.pool import Pool


class MetricLearner(Learner):
    """Subclasses define :meth:`logits`; every distinct text of a set of episodes is embedded once."""

    @abstractmethod
    def logits(self, encoder: Encoder, support: Tensor, query: Tensor) -> Tensor:
        """Logits ``[M, N]`` of query embeddings ``[M, D]``, given support embeddings ``[N, K, D]``."""

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
        ways, shots = episode.support.shape
        return self.logits(encoder, z[: ways * shots].view(ways, shots, -1), z[ways * shots :])
