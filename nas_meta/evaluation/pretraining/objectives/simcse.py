"""Unsupervised SimCSE (Gao et al. 2021, "SimCSE: Simple Contrastive Learning of Sentence Embeddings", equation 4).

A text is embedded twice, each time with other units dropped out; it shall be nearer to itself than to the other texts
of the batch: -log exp(cos(h_i, h_i⁺) / τ) / Σ_j exp(cos(h_i, h_j⁺) / τ).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas_meta.errors import ConfigError
from nas_meta.evaluation.pretraining.objectives.base import PretrainingLoss, body_of, check_rows, states_of
from nas_meta.evaluation.pretraining.options import PretrainingSection
from nas_meta.models.pooling import pool_states
from nas_meta.tasks.corpus.vocabulary import Vocabulary


class TwoViews(PretrainingLoss):
    """Embeddings pooled as those of the tasks; nothing is trained beside the model."""

    packed = False

    def __init__(self, model: nn.Module, vocabulary: Vocabulary, section: PretrainingSection, pooling: str = "mean"):
        super().__init__(model, vocabulary, section, pooling)
        check_rows(body_of(model), vocabulary, section.block)
        self._model = [model]  # not this module's
        if not any(isinstance(m, nn.Dropout) and m.p > 0 for m in model.modules()):
            raise ConfigError(
                f"pretraining.objective simcse tells two views of a text apart by dropout, but {type(model).__name__} "
                "has none; expected a model with dropout above 0"
            )

    def forward(self, call: nn.Module, input_ids: Tensor, attention_mask: Tensor):
        mask = attention_mask.repeat(2, 1)
        states = states_of(call, input_ids.repeat(2, 1), mask)
        return contrast(pool_states(self._model[0], states, mask, self.pooling), self.section.temperature)


def contrast(embeddings: Tensor, temperature: float) -> Tensor:
    """Equation 4: the first half of the rows ``[2B, D]`` are one view of each text, the second half the other."""
    one, other = F.normalize(embeddings.float(), dim=1).chunk(2)
    similarities = one @ other.T / temperature
    return F.cross_entropy(similarities, torch.arange(len(one), device=one.device))
