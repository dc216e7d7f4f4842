"""Causal language modelling: each token is told from those before it (Radford et al. 2018, "GPT", equation 1)."""

from __future__ import annotations

from torch import Tensor, nn

from nas_meta.errors import ConfigError
from nas_meta.evaluation.pretraining.objectives.base import (
    PretrainingLoss,
    body_of,
    check_rows,
    input_embeddings,
    states_of,
)
from nas_meta.evaluation.pretraining.objectives.chunked_cross_entropy import linear_cross_entropy
from nas_meta.evaluation.pretraining.options import PretrainingSection
from nas_meta.models.causality import is_causal
from nas_meta.tasks.corpus.vocabulary import Vocabulary


class NextToken(PretrainingLoss):
    """The model's own head for words where it has one, else the input embeddings."""

    def __init__(self, model: nn.Module, vocabulary: Vocabulary, section: PretrainingSection, pooling: str = "mean"):
        super().__init__(model, vocabulary, section, pooling)
        body, name = body_of(model), type(model).__name__
        table = input_embeddings(model, vocabulary, "clm")
        check_rows(body, vocabulary, section.block)
        if not is_causal(body, vocabulary.ordinary[[0, -1]]):
            raise ConfigError(
                f"pretraining.objective clm tells each word from those before it, but {name} sees those behind it, "
                "too; expected objective: mlm"
            )
        own = model.get_output_embeddings() if body is not model else None
        weight, bias = (table, None) if own is None else (own.weight, getattr(own, "bias", None))
        self._head = [weight, bias]  # the model's, not this module's

    def forward(self, call: nn.Module, input_ids: Tensor, attention_mask: Tensor):
        states = states_of(call, input_ids, attention_mask)
        # A text that was cut or padded ends its row: what follows there is nothing to be told.
        there = attention_mask[:, 1:].bool()
        return linear_cross_entropy(states[:, :-1][there], *self._head, input_ids[:, 1:][there])
