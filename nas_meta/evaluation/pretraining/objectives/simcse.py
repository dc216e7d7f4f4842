"""Unsupervised SimCSE (Gao et al. 2021, "SimCSE: Simple Contrastive Learning of Sentence Embeddings", equation 4).

Each text of a batch is embedded twice under different dropout. The embedding h_i should be closer to its second view
h_i⁺ than to the views of the other texts: -log exp(cos(h_i, h_i⁺) / τ) / Σ_j exp(cos(h_i, h_j⁺) / τ).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas_meta.errors import ConfigError
from nas_meta.evaluation.pretraining.objectives.base import (
    PretrainingLoss,
    check_row_length,
    token_states,
    without_lm_head,
)
from nas_meta.evaluation.pretraining.options import PretrainingSection
from nas_meta.models.pooling import pool_states
from nas_meta.tasks.corpus.vocabulary import Vocabulary


class TwoViews(PretrainingLoss):
    """Contrastive loss between two views of each text, pooled as in the few-shot tasks; it has no head.

    Args:
        model: A model with dropout.
        vocabulary: The vocabulary of the corpus.
        section: The options of the pre-training.
        pooling: How the token states of a text become its embedding.

    Raises:
        ConfigError: The model has no dropout, or does not take rows of ``section.block`` tokens.
    """

    packed = False

    def __init__(self, model: nn.Module, vocabulary: Vocabulary, section: PretrainingSection, pooling: str = "mean"):
        super().__init__(model, vocabulary, section, pooling)
        check_row_length(without_lm_head(model), vocabulary, section.block)
        self._model = [model]  # in a list, so that the model is not registered here as a submodule
        if not any(isinstance(m, nn.Dropout) and m.p > 0 for m in model.modules()):
            raise ConfigError(
                f"pretraining.objective simcse makes two views of a text by dropout, but {type(model).__name__} "
                "has none; expected a model with dropout above 0"
            )

    def forward(self, body: nn.Module, input_ids: Tensor, attention_mask: Tensor):
        mask = attention_mask.repeat(2, 1)
        states = token_states(body, input_ids.repeat(2, 1), mask)
        return contrast(pool_states(self._model[0], states, mask, self.pooling), self.section.temperature)


def contrast(embeddings: Tensor, temperature: float) -> Tensor:
    """Return the mean of equation 4 over the texts of a batch.

    Args:
        embeddings: ``[2B, D]``: the first B rows are one view of each text, the last B rows the other view.
        temperature: τ, above 0.

    Returns:
        A scalar.
    """
    one, other = F.normalize(embeddings.float(), dim=1).chunk(2)
    similarities = one @ other.T / temperature
    return F.cross_entropy(similarities, torch.arange(len(one), device=one.device))
