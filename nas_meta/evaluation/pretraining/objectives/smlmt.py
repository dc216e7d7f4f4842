"""Pre-training by few-shot tasks from unlabelled text (SMLMT; Bansal et al. 2020, "Self-Supervised Meta-Learning for
Few-Shot Natural Language Classification Tasks", section 3).

A step is an episode: some words are its classes, texts in which they stand are its examples, with the word masked
wherever it is; the loss is the prototypical network's (Snell et al. 2017). :mod:`nas_meta.tasks.sources.smlmt` offers
such tasks to any learner.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas_meta.errors import ConfigError
from nas_meta.evaluation.pretraining.objectives.base import PretrainingLoss, body_of, check_rows, states_of
from nas_meta.evaluation.pretraining.options import PretrainingSection
from nas_meta.evaluation.pretraining.row_sampler import RowSampler
from nas_meta.learners.protonet import ProtoNetOptions, prototype_logits
from nas_meta.models.pooling import pool_states
from nas_meta.tasks.corpus.token_store import TokenStore
from nas_meta.tasks.corpus.vocabulary import Vocabulary

FEWEST = 20  # texts in which a word stands
SHARE = 0.05  # of all texts in which a word stands at most: words that stand everywhere say little
INDEXED = 20_000_000  # tokens from the beginning of a corpus in which words are looked up


class MaskedTasks(PretrainingLoss):
    """Embeddings pooled as those of the tasks; nothing is trained beside the model."""

    packed = False

    def __init__(self, model: nn.Module, vocabulary: Vocabulary, section: PretrainingSection, pooling: str = "mean"):
        super().__init__(model, vocabulary, section, pooling)
        if vocabulary.mask is None:
            raise ConfigError(
                "pretraining.objective smlmt hides words behind a mask token, but the tokenizer has none; "
                "expected one with [MASK], or objective: simcse"
            )
        check_rows(body_of(model), vocabulary, section.block)
        self._model = [model]  # not a part of this module: it may score tokens for pooling

    def rows(self, corpus: TokenStore, seed: int) -> WordEpisodes:
        """Episodes of ``ways`` words with ``batch`` // ``ways`` texts each."""
        return WordEpisodes(corpus, self.section.block, self.packed, seed, self.section.ways)

    def forward(self, call: nn.Module, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """The loss of an episode: of each word the first text is its support, the others are queries."""
        ways, defaults = self.section.ways, ProtoNetOptions()
        states = states_of(call, input_ids, attention_mask)
        embeddings = pool_states(self._model[0], states, attention_mask, self.pooling)
        z = F.normalize(embeddings.float(), dim=-1).unflatten(0, (ways, -1))
        queries = z.shape[1] - 1
        logits = prototype_logits(z[:, :1], z[:, 1:].flatten(0, 1), defaults.scale)
        return F.cross_entropy(logits, torch.arange(ways, device=z.device).repeat_interleave(queries))


@dataclass
class WordEpisodes(RowSampler):
    """Batches of texts by the word that is masked in them, one word after the other.

    A word is a token that no other continues; it stands in ``FEWEST`` texts or more, and in at most ``SHARE`` of them.

    Args:
        ways: words of a batch.

    Raises:
        ConfigError: the corpus has fewer such words.
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
                f"pretraining.objective smlmt makes tasks of {self.ways} words, but the corpus has {len(self._words)} "
                f"that stand in {FEWEST} to {most_texts(self.corpus)} texts; expected a larger corpus, or another "
                "objective"
            )

    def batch(self, step: int, rows: int) -> tuple[np.ndarray, np.ndarray]:
        """Token ids and mask of an episode, ``[ways * (rows // ways), T]``; a function of the seed and the step."""
        rng = np.random.default_rng([self.seed, 2, step])
        texts = min(rows // self.ways, FEWEST)
        found = []
        for word in rng.choice(self._words, self.ways, replace=False):
            found += [self._masked(i, word) for i in rng.choice(self.texts_of[word], texts, replace=False)]
        lengths = np.array([len(ids) for ids in found])
        mask = (np.arange(lengths.max())[None, :] < lengths[:, None]).astype(np.int64)
        ids = np.full(mask.shape, self.corpus.vocabulary.pad, dtype=np.int64)
        ids[mask.astype(bool)] = np.concatenate(found)
        return ids, mask

    def _masked(self, text: int, word: int) -> np.ndarray:
        """A text with a word hidden wherever it stands; of a long one what is around the first place, and its ends."""
        start, end = self.corpus.offsets[text : text + 2].astype(int)
        ids = self.corpus.tokens[start:end].astype(np.int64)
        place = int(np.argmax(ids == word))
        ids[ids == word] = self.corpus.vocabulary.mask
        if len(ids) <= self.width:
            return ids
        # The first and the last token may stand for the whole ([CLS]) and its end.
        begin = int(np.clip(place - self.width // 2, 1, len(ids) - self.width + 1))
        return np.concatenate([ids[:1], ids[begin : begin + self.width - 2], ids[-1:]])


def most_texts(corpus: TokenStore) -> int:
    """In how many texts a word stands at most."""
    return max(FEWEST, int(SHARE * corpus.texts))


def word_index(corpus: TokenStore) -> dict[int, np.ndarray]:
    """Of every token that is a word of a fitting frequency, the texts in which it stands, in their order."""
    vocabulary, tokens = corpus.vocabulary, np.asarray(corpus.tokens[:INDEXED], dtype=np.int64)
    following = np.append(vocabulary.continues[tokens[1:]], False)
    whole = ~vocabulary.special[tokens] & ~vocabulary.continues[tokens] & ~following
    places = np.flatnonzero(whole)
    text = np.searchsorted(corpus.offsets, places, side="right") - 1
    pairs = np.unique(np.stack([tokens[places], text], axis=1), axis=0)
    found, starts = np.unique(pairs[:, 0], return_index=True)
    parts = np.split(pairs[:, 1], starts[1:])
    most = most_texts(corpus)
    return {int(w): texts for w, texts in zip(found, parts, strict=True) if FEWEST <= len(texts) <= most}
