"""Which rows of a corpus each step sees: every row once an epoch, in an order that follows from the seed alone.

No permutation is held, which of a large corpus would take gigabytes: a Feistel network of four rounds permutes the
numbers below a power of four, and is applied again where it leaves the corpus ("cycle walking": Black and Rogaway 2002,
"Ciphers with Arbitrary Finite Domains").
"""

from __future__ import annotations

import numpy as np

from nas_meta.tasks.corpus.token_store import TokenStore

ROUNDS = 4


def shuffled(places: np.ndarray, count: int, seed: tuple[int, ...]) -> np.ndarray:
    """The rows at these places of a pseudo-random permutation of ``range(count)``.

    Args:
        places: whole numbers from 0 to count - 1.
        seed: of the permutation.
    """
    half = np.uint64(max(1, ((count - 1).bit_length() + 1) // 2))
    low = np.uint64((1 << int(half)) - 1)
    keys = np.random.SeedSequence(seed).generate_state(ROUNDS, np.uint64)

    def permuted(x: np.ndarray) -> np.ndarray:
        left, right = x >> half, x & low
        for key in keys:
            left, right = right, left ^ (_mixed(right ^ key) & low)
        return (left << half) | right

    found = permuted(np.asarray(places, dtype=np.uint64))
    while (outside := found >= count).any():
        found[outside] = permuted(found[outside])
    return found.astype(np.int64)


def _mixed(x: np.ndarray) -> np.ndarray:
    """The finaliser of SplitMix64 (Steele et al. 2014): every bit of the input changes about half of the output's."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


class RowSampler:
    """Rows of a corpus, drawn without replacement until all have been, then anew in another order.

    Args:
        width: tokens of a row.
        packed: rows are the corpus cut into blocks of ``width`` tokens, wherever texts begin and end; else each is one
            text, cut to ``width`` tokens and padded to the longest.
    """

    def __init__(self, corpus: TokenStore, width: int, packed: bool, seed: int):
        self.corpus, self.width, self.packed, self.seed = corpus, width, packed, seed
        self.count = max(1, corpus.count // width) if packed else corpus.texts

    def batch(self, step: int, rows: int) -> tuple[np.ndarray, np.ndarray]:
        """Token ids and mask of the rows of a step (from 0), both ``[rows, T]``."""
        places = np.arange(step * rows, (step + 1) * rows)
        epochs = places // self.count
        chosen = np.concatenate([
            shuffled(places[epochs == e] % self.count, self.count, (self.seed, int(e))) for e in np.unique(epochs)
        ])  # fmt: skip
        return self._blocks(chosen) if self.packed else self._texts(chosen)

    def _blocks(self, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        width = min(self.width, self.corpus.count)  # of a corpus that is shorter than a block
        ids = np.stack([self.corpus.tokens[i * width : (i + 1) * width] for i in chosen]).astype(np.int64)
        return ids, np.ones_like(ids)

    def _texts(self, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        starts, ends = self.corpus.offsets[chosen].astype(int), self.corpus.offsets[chosen + 1].astype(int)
        lengths = np.minimum(ends - starts, self.width)
        mask = (np.arange(lengths.max())[None, :] < lengths[:, None]).astype(np.int64)
        ids = np.full(mask.shape, self.corpus.vocabulary.pad, dtype=np.int64)
        for row, (start, length) in enumerate(zip(starts, lengths, strict=True)):
            ids[row, :length] = self.corpus.tokens[start : start + length]
        return ids, mask
