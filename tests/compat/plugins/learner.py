"""A learner with options, something of its own that is learned, and a classifier from class means.

FROZEN: written against nas-meta 0.1. Never edited to make a test pass, for an author's own plugin is not either.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from nas_meta import Learner, LearnerOptions
from nas_meta.embedding import Encoder
from nas_meta.tasks.episodes import Episode
from nas_meta.tasks.pool import Pool


class ScaledMeansOptions(LearnerOptions):
    """Options of the learner."""

    temperature: float = Field(10.0, gt=0, description="of the cosine, at the beginning")


class Temperature(nn.Module):
    """A number that is learned beside the encoder."""

    def __init__(self, value: float):
        super().__init__()
        self.value = nn.Parameter(torch.tensor(value))


class ScaledMeans(Learner):
    """Cosine similarity to class means, times a temperature that is learned."""

    Options = ScaledMeansOptions
    options: ScaledMeansOptions

    def learned(self, encoder: Encoder, ways: int) -> nn.Module:
        return Temperature(self.options.temperature)

    def meta_loss(self, encoder: Encoder, pool: Pool, episode: Episode) -> Tensor:
        return F.cross_entropy(self._logits(encoder, pool, episode), torch.from_numpy(episode.labels))

    def classify(self, encoder: Encoder, pool: Pool, episode: Episode) -> Tensor:
        with torch.no_grad():
            return self._logits(encoder, pool, episode)

    def _logits(self, encoder: Encoder, pool: Pool, episode: Episode) -> Tensor:
        z = F.normalize(encoder.embed(pool, episode.indices), dim=-1)
        ways, shots = episode.support.shape
        means = F.normalize(z[: ways * shots].view(ways, shots, -1).mean(1), dim=-1)
        assert isinstance(encoder.learned, Temperature)
        return encoder.learned.value * z[ways * shots :] @ means.T
