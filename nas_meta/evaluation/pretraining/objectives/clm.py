"""Causal language modelling: predict each token from the tokens before it (Radford et al. 2018, "GPT", equation 1)."""

from __future__ import annotations

from torch import Tensor, nn

from nas_meta.errors import ConfigError
from nas_meta.evaluation.pretraining.objectives.base import (
    PretrainingLoss,
    check_row_length,
    input_embeddings,
    token_states,
    without_lm_head,
)
from nas_meta.evaluation.pretraining.objectives.chunked_cross_entropy import linear_cross_entropy
from nas_meta.evaluation.pretraining.options import PretrainingSection
from nas_meta.models.causality import is_causal
from nas_meta.tasks.corpus.vocabulary import Vocabulary


class NextToken(PretrainingLoss):
    """Next-token cross-entropy with the model's language-model head or, without one, with the input embeddings.

    Args:
        model: A causal model.
        vocabulary: The vocabulary of the corpus.
        section: The options of the pre-training.
        pooling: Unused.

    Raises:
        ConfigError: The model is not causal, has no input embeddings for the vocabulary, or does not take rows of
            ``section.block`` tokens.
    """

    def __init__(self, model: nn.Module, vocabulary: Vocabulary, section: PretrainingSection, pooling: str = "mean"):
        super().__init__(model, vocabulary, section, pooling)
        body, name = without_lm_head(model), type(model).__name__
        table = input_embeddings(model, vocabulary, "clm")
        check_row_length(body, vocabulary, section.block)
        if not is_causal(body, vocabulary.ordinary[[0, -1]]):
            raise ConfigError(
                f"pretraining.objective clm predicts each token from the tokens before it, but {name} also sees the "
                "tokens after it; expected objective: mlm"
            )
        head = model.get_output_embeddings() if body is not model else None
        weight, bias = (table, None) if head is None else (head.weight, getattr(head, "bias", None))
        self._head = [weight, bias]  # in a list, so that the model's parameters are not registered here again

    def forward(self, body: nn.Module, input_ids: Tensor, attention_mask: Tensor):
        states = token_states(body, input_ids, attention_mask)
        # Padding is not a target: only positions whose next token is part of the text have a loss.
        is_target = attention_mask[:, 1:].bool()
        return linear_cross_entropy(states[:, :-1][is_target], *self._head, input_ids[:, 1:][is_target])
