"""The rows of a corpus that each step trains on: every row once per epoch, in an order given by the seed alone.

The permutation is computed, not stored: for a large corpus it would take gigabytes. A Feistel network of four rounds
permutes the numbers below a power of four. Where its result lies outside the corpus it is applied again ("cycle
walking": Black and Rogaway 2002, "Ciphers with Arbitrary Finite Domains").
"""

from __future__ import annotations

import numpy as np

from nas_meta.tasks.corpus.token_store import TokenStore

ROUNDS = 4


def shuffled(positions: np.ndarray, count: int, seed: tuple[int, ...]) -> np.ndarray:
    """Return entries of a pseudo-random permutation of ``range(count)``.

    Invariant: the network is a bijection of ``range(4 ** half)``, which contains ``range(count)``. Following it from a
    number below ``count`` until the result is below ``count`` again is therefore a bijection of ``range(count)``.

    Example: for count = 3 the network permutes {0, 1, 2, 3}, say 0 → 3, 1 → 0, 2 → 2, 3 → 1. Position 0 goes to 3,
    which is outside, and from there to 1, so the permutation is [1, 0, 2].

    Args:
        positions: Positions ``[N]`` in the permutation, from 0 to count - 1.
        count: Length of the permutation, at least 1.
        seed: Seed of the permutation.

    Returns:
        The entries ``[N]`` at these positions.
    """
    half = np.uint64(max(1, ((count - 1).bit_length() + 1) // 2))
    low = np.uint64((1 << int(half)) - 1)
    keys = np.random.SeedSequence(seed).generate_state(ROUNDS, np.uint64)

    def feistel(x: np.ndarray) -> np.ndarray:
        left, right = x >> half, x & low
        for key in keys:
            left, right = right, left ^ (_mix_bits(right ^ key) & low)
        return (left << half) | right

    rows = feistel(np.asarray(positions, dtype=np.uint64))
    while (outside := rows >= count).any():
        rows[outside] = feistel(rows[outside])
    return rows.astype(np.int64)


def _mix_bits(x: np.ndarray) -> np.ndarray:
    """Hash numbers with SplitMix64's finaliser (Steele et al. 2014): an input bit flips about half of the output's."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


class RowSampler:
    """Draws the rows of a corpus without replacement, in another order in every epoch.

    Args:
        corpus: The tokenised corpus.
        width: Largest number of tokens in a row.
        packed: Whether rows are blocks of ``width`` tokens that ignore text boundaries; otherwise a row is one text,
            cut to ``width`` tokens and padded to the longest row of its batch.
        seed: Seed of the order.

    Attributes:
        count: Number of rows in an epoch.
    """

    def __init__(self, corpus: TokenStore, width: int, packed: bool, seed: int):
        self.corpus, self.width, self.packed, self.seed = corpus, width, packed, seed
        self.count = max(1, corpus.count // width) if packed else corpus.texts

    def batch(self, step: int, rows: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the rows of a step, which depend on the seed and the step alone.

        Args:
            step: Number of the step, from 0.
            rows: Number of rows per step.

        Returns:
            Token ids and attention mask, both ``[rows, T]``.
        """
        positions = np.arange(step * rows, (step + 1) * rows)
        epochs = positions // self.count
        indices = np.concatenate([
            shuffled(positions[epochs == e] % self.count, self.count, (self.seed, int(e))) for e in np.unique(epochs)
        ])  # fmt: skip
        return self._blocks(indices) if self.packed else self._texts(indices)

    def _blocks(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return blocks of the corpus; a corpus shorter than a block is one short block."""
        width = min(self.width, self.corpus.count)
        ids = np.stack([self.corpus.tokens[i * width : (i + 1) * width] for i in indices]).astype(np.int64)
        return ids, np.ones_like(ids)

    def _texts(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return texts, cut and padded."""
        starts, ends = self.corpus.offsets[indices].astype(int), self.corpus.offsets[indices + 1].astype(int)
        lengths = np.minimum(ends - starts, self.width)
        mask = (np.arange(lengths.max())[None, :] < lengths[:, None]).astype(np.int64)
        ids = np.full(mask.shape, self.corpus.vocabulary.pad, dtype=np.int64)
        for row, (start, length) in enumerate(zip(starts, lengths, strict=True)):
            ids[row, :length] = self.corpus.tokens[start : start + length]
        return ids, mask
