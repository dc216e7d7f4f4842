"""Pre-training by few-shot tasks from unlabelled text (SMLMT).

Bansal et al. 2020, "Self-Supervised Meta-Learning for Few-Shot Natural Language Classification Tasks", section 3.

Each step is an episode. Its classes are words, and the examples of a class are texts that contain the word, with every
occurrence masked. The loss is that of a prototypical network (Snell et al. 2017). The task source
:mod:`nas_meta.tasks.sources.smlmt` offers such tasks to any learner.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
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
from nas_meta.evaluation.pretraining.row_sampler import RowSampler
from nas_meta.learners.protonet import ProtoNetOptions, prototype_logits
from nas_meta.models.pooling import pool_states
from nas_meta.tasks.corpus.token_store import TokenStore
from nas_meta.tasks.corpus.vocabulary import Vocabulary

MIN_TEXTS = 20  # a class needs a word that occurs in at least that many texts
MAX_SHARE = 0.05  # and in at most this share of all texts: very frequent words carry little meaning
INDEXED_TOKENS = 20_000_000  # only the first tokens of a large corpus are searched for words


class MaskedTasks(PretrainingLoss):
    """Prototypical-network loss on episodes of masked words, pooled as in the few-shot tasks; it has no head.

    Args:
        model: The model to pre-train.
        vocabulary: The vocabulary of the corpus, with a mask token.
        section: The options of the pre-training.
        pooling: How the token states of a text become its embedding.

    Raises:
        ConfigError: The tokenizer has no mask token, or the model does not take rows of ``section.block`` tokens.
    """

    packed = False

    def __init__(self, model: nn.Module, vocabulary: Vocabulary, section: PretrainingSection, pooling: str = "mean"):
        super().__init__(model, vocabulary, section, pooling)
        if vocabulary.mask is None:
            raise ConfigError(
                "pretraining.objective smlmt replaces words by a mask token, but the tokenizer has none; "
                "expected a tokenizer with [MASK], or objective: simcse"
            )
        check_row_length(without_lm_head(model), vocabulary, section.block)
        # In a list, so that it is not registered here as a submodule. Attention pooling needs the model.
        self._model = [model]

    def rows(self, corpus: TokenStore, seed: int) -> WordEpisodes:
        """Return the sampler of episodes with ``ways`` words and ``batch // ways`` texts per word.

        Args:
            corpus: The tokenised corpus.
            seed: Seed of the episodes.

        Raises:
            ConfigError: The corpus has fewer than ``ways`` suitable words.
        """
        return WordEpisodes(corpus, self.section.block, self.packed, seed, self.section.ways)

    def forward(self, body: nn.Module, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return the mean loss of an episode; the first text of each word is its support, the others are queries.

        Args:
            body: The model without its language-model head, or the compiled forward pass of it.
            input_ids: Token ids ``[ways · texts, T]``, grouped by word.
            attention_mask: Attention mask ``[ways · texts, T]``.

        Returns:
            A scalar.
        """
        ways, defaults = self.section.ways, ProtoNetOptions()
        states = token_states(body, input_ids, attention_mask)
        embeddings = pool_states(self._model[0], states, attention_mask, self.pooling)
        z = F.normalize(embeddings.float(), dim=-1).unflatten(0, (ways, -1))
        queries = z.shape[1] - 1
        logits = prototype_logits(z[:, :1], z[:, 1:].flatten(0, 1), defaults.scale)
        return F.cross_entropy(logits, torch.arange(ways, device=z.device).repeat_interleave(queries))


@dataclass
class WordEpisodes(RowSampler):
    """Episodes of texts grouped by the word that is masked in them.

    A word is a token that forms a whole word. It must occur in at least ``MIN_TEXTS`` texts, and in at most
    :func:`max_texts` texts.

    Attributes:
        corpus: The tokenised corpus.
        width: Largest number of tokens in a row; longer texts are cut around the masked word.
        packed: Unused; each row is one text.
        seed: Seed of the episodes.
        ways: Number of words in an episode.
        texts_of: For each suitable word (a token id), the indices of the texts that contain it.

    Raises:
        ConfigError: The corpus has fewer than ``ways`` suitable words.
    """

    corpus: TokenStore
    width: int
    packed: bool
    seed: int
    ways: int
    texts_of: dict[int, np.ndarray] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.texts_of = word_index(self.corpus)
        self._words = np.array(sorted(self.texts_of))
        if len(self._words) < self.ways:
            raise ConfigError(
                f"pretraining.objective smlmt builds tasks of {self.ways} words, but the corpus has {len(self._words)} "
                f"that occur in {MIN_TEXTS} to {max_texts(self.corpus)} texts; expected a larger corpus, or another "
                "objective"
            )

    def batch(self, step: int, rows: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the episode of a step, which depends on the seed and the step alone.

        Args:
            step: Number of the step, from 0.
            rows: Rows available; each word gets ``rows // ways`` of them, but at most ``MIN_TEXTS``.

        Returns:
            Token ids and attention mask, both ``[ways · texts, T]``, grouped by word.
        """
        rng = np.random.default_rng([self.seed, 2, step])
        texts = min(rows // self.ways, MIN_TEXTS)
        examples = []
        for word in rng.choice(self._words, self.ways, replace=False):
            examples += [self._masked(i, word) for i in rng.choice(self.texts_of[word], texts, replace=False)]
        lengths = np.array([len(ids) for ids in examples])
        mask = (np.arange(lengths.max())[None, :] < lengths[:, None]).astype(np.int64)
        ids = np.full(mask.shape, self.corpus.vocabulary.pad, dtype=np.int64)
        ids[mask.astype(bool)] = np.concatenate(examples)
        return ids, mask

    def _masked(self, text: int, word: int) -> np.ndarray:
        """Return a text with every occurrence of a word masked, cut to ``width`` tokens around the first occurrence."""
        start, end = self.corpus.offsets[text : text + 2].astype(int)
        ids = self.corpus.tokens[start:end].astype(np.int64)
        position = int(np.argmax(ids == word))
        ids[ids == word] = self.corpus.vocabulary.mask
        if len(ids) <= self.width:
            return ids
        # Keep the first and the last token: they may be [CLS] and [SEP], on which pooling relies.
        begin = int(np.clip(position - self.width // 2, 1, len(ids) - self.width + 1))
        return np.concatenate([ids[:1], ids[begin : begin + self.width - 2], ids[-1:]])


def max_texts(corpus: TokenStore) -> int:
    """Return the largest number of texts in which a word of an episode may occur.

    Args:
        corpus: The tokenised corpus.

    Returns:
        ``MAX_SHARE`` of its texts, but at least ``MIN_TEXTS``.
    """
    return max(MIN_TEXTS, int(MAX_SHARE * corpus.texts))


def word_index(corpus: TokenStore) -> dict[int, np.ndarray]:
    """Find the texts of every word that is neither too rare nor too frequent.

    A word is an ordinary token that neither continues a word nor is continued by the next token.

    Args:
        corpus: The tokenised corpus, of which the first ``INDEXED_TOKENS`` tokens are searched.

    Returns:
        For each word (a token id), the ascending indices of the texts that contain it.
    """
    vocabulary, tokens = corpus.vocabulary, np.asarray(corpus.tokens[:INDEXED_TOKENS], dtype=np.int64)
    is_continued = np.append(vocabulary.continues[tokens[1:]], False)
    is_word = ~vocabulary.special[tokens] & ~vocabulary.continues[tokens] & ~is_continued
    positions = np.flatnonzero(is_word)
    text = np.searchsorted(corpus.offsets, positions, side="right") - 1
    pairs = np.unique(np.stack([tokens[positions], text], axis=1), axis=0)
    words, starts = np.unique(pairs[:, 0], return_index=True)
    texts_by_word = np.split(pairs[:, 1], starts[1:])
    most = max_texts(corpus)
    return {int(w): texts for w, texts in zip(words, texts_by_word, strict=True) if MIN_TEXTS <= len(texts) <= most}
