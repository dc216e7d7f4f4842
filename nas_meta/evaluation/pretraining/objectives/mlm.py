"""Masked language modelling (Devlin et al. 2019, "BERT", section 3.1, task 1).

Of the tokens of a row 15 % are to be told; of these 80 % are hidden behind ``[MASK]``, 10 % replaced by a random token
and 10 % left as they are. With whole words, the tokens of a word are to be told together (BERT's later release).
"""

from __future__ import annotations

import numpy as np
import torch.nn.functional as F
from torch import Tensor, nn, zeros

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

HIDDEN, RANDOM = 0.8, 0.1  # of the tokens that are to be told


class MaskedWords(PretrainingLoss):
    """BERT's head: dense, GELU, norm, then the product with the input embeddings, which it shares.

    Only the states of the tokens that are to be told go through it.
    """

    def __init__(self, model: nn.Module, vocabulary: Vocabulary, section: PretrainingSection, pooling: str = "mean"):
        super().__init__(model, vocabulary, section, pooling)
        body, name = body_of(model), type(model).__name__
        if vocabulary.mask is None:
            raise ConfigError(
                "pretraining.objective mlm hides words behind a mask token, but the tokenizer has none; "
                "expected one with [MASK], or objective: clm"
            )
        table = input_embeddings(model, vocabulary, "mlm")
        check_rows(body, vocabulary, section.block)
        if is_causal(body, vocabulary.ordinary[[0, -1]]):
            raise ConfigError(
                f"pretraining.objective mlm looks at both sides of a word, but {name} sees only what comes before; "
                "expected objective: clm"
            )
        width = _width(body, vocabulary)
        self.dense = nn.Linear(width, table.shape[1])
        self.norm = nn.LayerNorm(table.shape[1], eps=getattr(getattr(body, "config", None), "layer_norm_eps", 1e-12))
        self.bias = nn.Parameter(zeros(len(table)))
        self._table = [table]  # not a parameter of this module: it is the model's
        nn.init.normal_(self.dense.weight, std=0.02)
        nn.init.zeros_(self.dense.bias)
        self.to(table.device)

    def inputs(self, ids: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> dict[str, np.ndarray]:
        told = chosen(ids, self.vocabulary, self.section.masked, self.section.whole_words, rng)
        places = np.flatnonzero(told)
        hidden = ids.copy()
        hidden[told] = disguised(ids[told], self.vocabulary, rng)
        return {"input_ids": hidden, "attention_mask": mask, "places": places, "targets": ids.ravel()[places]}

    def forward(self, call: nn.Module, input_ids: Tensor, attention_mask: Tensor, places: Tensor, targets: Tensor):
        states = states_of(call, input_ids, attention_mask).flatten(0, 1).index_select(0, places)
        return linear_cross_entropy(self.norm(F.gelu(self.dense(states))), self._table[0], self.bias, targets)


def _width(model: nn.Module, vocabulary: Vocabulary) -> int:
    import torch

    ids = torch.full((1, 2), int(vocabulary.ordinary[0]), device=next(model.parameters()).device)
    trained = model.training
    with torch.no_grad():
        width = states_of(model.eval(), ids, torch.ones_like(ids)).shape[-1]
    model.train(trained)
    return width


def chosen(
    ids: np.ndarray, vocabulary: Vocabulary, share: float, whole_words: bool, rng: np.random.Generator
) -> np.ndarray:
    """Which tokens of rows ``[B, T]`` are to be told: of each row the share, rounded, but at least one; none special.

    Whole words are drawn until no further one fits into that number; one that is longer alone is drawn all the same.
    """
    ordinary = ~vocabulary.special[ids]
    wanted = np.maximum(np.round(share * ordinary.sum(1)), 1).astype(int)
    if whole_words:
        return np.stack([_words(*row, rng) for row in zip(ordinary, vocabulary.continues[ids], wanted, strict=True)])
    keys = np.where(ordinary, rng.random(ids.shape), 2.0)
    ranks = keys.argsort(1).argsort(1)
    return (ranks < wanted[:, None]) & ordinary


def _words(ordinary: np.ndarray, continues: np.ndarray, wanted: int, rng: np.random.Generator) -> np.ndarray:
    """Of one row, the tokens of words that are to be told."""
    word = np.cumsum(~continues | ~ordinary) * ordinary  # 0 for what is no word
    numbers, lengths = np.unique(word[ordinary], return_counts=True)
    told, left = [], wanted
    for i in rng.permutation(len(numbers)):
        if lengths[i] <= left or not told:
            told.append(numbers[i])
            left -= lengths[i]
        if left <= 0:
            break
    return np.isin(word, told) & ordinary


def disguised(tokens: np.ndarray, vocabulary: Vocabulary, rng: np.random.Generator) -> np.ndarray:
    """What stands in the place of tokens that are to be told: the mask, any token, or they themselves."""
    draw = rng.random(tokens.shape)
    others = rng.choice(vocabulary.ordinary, tokens.shape)
    return np.where(draw < HIDDEN, vocabulary.mask, np.where(draw < HIDDEN + RANDOM, others, tokens))
