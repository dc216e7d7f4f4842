"""The examples of one split, tokenised once, and the three splits together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from nas_meta.tasks.source import SPLITS, SplitClasses


@dataclass(frozen=True)
class Pool:
    """The examples of one split.

    Attributes:
        classes: class names.
        texts: every text.
        labels: ``[texts]``, the index of each text's class.
        tokens: all token ids, one text after the other.
        offsets: ``[texts + 1]``, where each text's tokens begin.
        words: for every token, which word of its text it belongs to; -1 for none (``[CLS]``).
        synonyms: token ids of the synonyms of a word, by the word's; empty unless augmentation asks for them.
        teacher: ``[texts, E]``, embeddings of the full model; only where distillation asks for them.

    Arrays are plain NumPy, so that Ray shares them between workers without a copy.
    """

    classes: Sequence[str]
    texts: Sequence[str]
    labels: np.ndarray
    tokens: np.ndarray
    offsets: np.ndarray
    words: np.ndarray
    synonyms: Mapping[tuple[int, ...], Sequence[tuple[int, ...]]] = field(default_factory=dict)
    teacher: np.ndarray | None = None

    @cached_property
    def members(self) -> list[np.ndarray]:
        """For each class, the indices of its texts."""
        order = np.argsort(self.labels, kind="stable")
        starts = np.searchsorted(self.labels[order], np.arange(len(self.classes) + 1))
        return np.split(order, starts)[1:-1]

    @cached_property
    def lengths(self) -> np.ndarray:
        """``[texts]``, tokens in each text."""
        return np.diff(self.offsets)

    def words_of(self, index: int) -> list[tuple[tuple[int, ...], bool]]:
        """A text's tokens, those of one word together, and whether they are a word."""
        here = slice(self.offsets[index], self.offsets[index + 1])
        groups: list[tuple[list[int], bool]] = []
        last = -1
        for token, word in zip(self.tokens[here].tolist(), self.words[here].tolist(), strict=True):
            if word >= 0 and word == last:
                groups[-1][0].append(token)
            else:
                groups.append(([token], word >= 0))
            last = word
        return [(tuple(tokens), is_word) for tokens, is_word in groups]

    def batch(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Token ids and attention mask of the given texts, both ``[len(indices), longest]``, padded with 0."""
        lengths = self.lengths[indices]
        mask = np.arange(lengths.max(initial=1))[None, :] < lengths[:, None]
        ids = np.zeros(mask.shape, dtype=np.int64)
        ids[mask] = np.concatenate([self.tokens[self.offsets[i] : self.offsets[i + 1]] for i in indices])
        return ids, mask.astype(np.int64)


@dataclass(frozen=True)
class Tasks:
    """The three splits and what was left out of them, in words."""

    pools: Mapping[str, Pool]
    report: Sequence[str] = ()

    def __getitem__(self, split: str) -> Pool:
        return self.pools[split]


def tokenise(
    split: SplitClasses, encode: Callable[[list[str]], tuple[Sequence[Sequence[int]], Sequence[Sequence[int]]]]
) -> Tasks:
    """Tokenises every split once; ``encode`` maps texts to token ids and to the word of each token."""
    pools = {}
    for name in SPLITS:
        classes = split.splits[name]
        texts = [t for examples in classes.values() for t in examples]
        labels = np.repeat(np.arange(len(classes)), [len(v) for v in classes.values()])
        ids, words = encode(texts) if texts else ([], [])
        offsets = np.concatenate([[0], np.cumsum([len(i) for i in ids])]).astype(np.int64)
        tokens = np.concatenate([np.asarray(i, dtype=np.int32) for i in ids]) if ids else np.zeros(0, np.int32)
        words_flat = np.concatenate([np.asarray(w, dtype=np.int32) for w in words]) if words else np.zeros(0, np.int32)
        pools[name] = Pool(list(classes), texts, labels, tokens, offsets, words_flat)
    return Tasks(pools, split.report)
