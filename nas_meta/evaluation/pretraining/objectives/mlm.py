"""Masked language modelling (Devlin et al. 2019, "BERT", section 3.1, task 1).

In each row, 15 % of the tokens are selected for prediction. Of these, 80 % are replaced by ``[MASK]``, 10 % by a random
token, and 10 % stay as they are. With whole words, all tokens of a word are selected together (BERT's later release).
"""

from __future__ import annotations

import numpy as np
import torch.nn.functional as F
from torch import Tensor, nn, zeros

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

MASK_SHARE, RANDOM_SHARE = 0.8, 0.1  # shares of the tokens selected for prediction


class MaskedWords(PretrainingLoss):
    """Masked language modelling with BERT's head.

    The head is a dense layer, GELU, a norm, and the model's input embeddings as output weights. Only the states of the
    selected tokens go through it.

    Args:
        model: A model that sees both sides of a token.
        vocabulary: The vocabulary of the corpus, with a mask token.
        section: The options of the pre-training.
        pooling: Unused.

    Raises:
        ConfigError: The tokenizer has no mask token, or the model is causal, has no input embeddings for the
            vocabulary, or does not take rows of ``section.block`` tokens.
    """

    def __init__(self, model: nn.Module, vocabulary: Vocabulary, section: PretrainingSection, pooling: str = "mean"):
        super().__init__(model, vocabulary, section, pooling)
        body, name = without_lm_head(model), type(model).__name__
        if vocabulary.mask is None:
            raise ConfigError(
                "pretraining.objective mlm replaces tokens by a mask token, but the tokenizer has none; "
                "expected a tokenizer with [MASK], or objective: clm"
            )
        table = input_embeddings(model, vocabulary, "mlm")
        check_row_length(body, vocabulary, section.block)
        if is_causal(body, vocabulary.ordinary[[0, -1]]):
            raise ConfigError(
                f"pretraining.objective mlm predicts a token from the tokens on both sides of it, but {name} sees only "
                "the tokens before it; expected objective: clm"
            )
        width = _state_width(body, vocabulary)
        self.dense = nn.Linear(width, table.shape[1])
        self.norm = nn.LayerNorm(table.shape[1], eps=getattr(getattr(body, "config", None), "layer_norm_eps", 1e-12))
        self.bias = nn.Parameter(zeros(len(table)))
        self._table = [table]  # in a list, so that the model's parameter is not registered here again
        nn.init.normal_(self.dense.weight, std=0.02)
        nn.init.zeros_(self.dense.bias)
        self.to(table.device)

    def inputs(self, ids: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> dict[str, np.ndarray]:
        selected = select_targets(ids, self.vocabulary, self.section.masked, self.section.whole_words, rng)
        positions = np.flatnonzero(selected)
        corrupted = ids.copy()
        corrupted[selected] = corrupt(ids[selected], self.vocabulary, rng)
        targets = ids.ravel()[positions]
        return {"input_ids": corrupted, "attention_mask": mask, "positions": positions, "targets": targets}

    def forward(self, body: nn.Module, input_ids: Tensor, attention_mask: Tensor, positions: Tensor, targets: Tensor):
        states = token_states(body, input_ids, attention_mask).flatten(0, 1).index_select(0, positions)
        return linear_cross_entropy(self.norm(F.gelu(self.dense(states))), self._table[0], self.bias, targets)


def _state_width(model: nn.Module, vocabulary: Vocabulary) -> int:
    """Return the width D of the model's token states, from a row of two tokens."""
    import torch

    ids = torch.full((1, 2), int(vocabulary.ordinary[0]), device=next(model.parameters()).device)
    training = model.training
    with torch.no_grad():
        width = token_states(model.eval(), ids, torch.ones_like(ids)).shape[-1]
    model.train(training)
    return width


def select_targets(
    ids: np.ndarray, vocabulary: Vocabulary, share: float, whole_words: bool, rng: np.random.Generator
) -> np.ndarray:
    """Select the tokens of each row that are to be predicted; special tokens are never selected.

    With whole words, words are drawn at random and skipped if they exceed what is left of the row's number. The first
    word is always taken, however long it is.

    Args:
        ids: Token ids ``[B, T]``.
        vocabulary: Tells special tokens and tokens that continue a word.
        share: Share of a row's ordinary tokens to select, from 0 to 1; the number is rounded, and at least 1.
        whole_words: Whether all tokens of a word are selected together.
        rng: Source of random numbers.

    Returns:
        A boolean mask ``[B, T]``.
    """
    ordinary = ~vocabulary.special[ids]
    counts = np.maximum(np.round(share * ordinary.sum(1)), 1).astype(int)
    if whole_words:
        rows = zip(ordinary, vocabulary.continues[ids], counts, strict=True)
        return np.stack([_select_words(*row, rng) for row in rows])
    keys = np.where(ordinary, rng.random(ids.shape), 2.0)
    ranks = keys.argsort(1).argsort(1)
    return (ranks < counts[:, None]) & ordinary


def _select_words(ordinary: np.ndarray, continues: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Select whole words of one row with about ``count`` tokens; returns a mask ``[T]``."""
    word_of = np.cumsum(~continues | ~ordinary) * ordinary  # number of each token's word; 0 for special tokens
    words, lengths = np.unique(word_of[ordinary], return_counts=True)
    selected, remaining = [], count
    for i in rng.permutation(len(words)):
        if lengths[i] <= remaining or not selected:
            selected.append(words[i])
            remaining -= lengths[i]
        if remaining <= 0:
            break
    return np.isin(word_of, selected) & ordinary


def corrupt(tokens: np.ndarray, vocabulary: Vocabulary, rng: np.random.Generator) -> np.ndarray:
    """Replace the selected tokens: 80 % by the mask token, 10 % by a random ordinary token, 10 % not at all.

    Args:
        tokens: Ids ``[N]`` of the tokens selected for prediction.
        vocabulary: Gives the mask token and the ordinary tokens.
        rng: Source of random numbers.

    Returns:
        Ids ``[N]`` that the model sees instead.
    """
    draw = rng.random(tokens.shape)
    random_tokens = rng.choice(vocabulary.ordinary, tokens.shape)
    unmasked = np.where(draw < MASK_SHARE + RANDOM_SHARE, random_tokens, tokens)
    return np.where(draw < MASK_SHARE, vocabulary.mask, unmasked)
