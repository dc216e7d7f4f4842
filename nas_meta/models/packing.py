"""Sequence packing: several short texts in one row, each attending to itself only, so that few tokens are padding.

Krell et al. 2021, "Efficient Sequence Packing without Cross-contamination": attention is masked to blocks and positions
restart with every text. The invariant is that the outputs equal those of the texts one by one. Texts of few-shot tasks
(diagnoses, intents) differ so much in length that half of a padded batch is padding.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from nas_meta.tasks.pool import Pool

# Target number of tokens per row: attention is quadratic in it, the rest of a layer is not.
ROW_TOKENS = 64


class Packing(NamedTuple):
    """Layout of B texts in R packed rows of L tokens; all fields are integer arrays or tensors.

    Example: three texts ``a b c`` of 3, 2 and 2 tokens, in two rows of at most 4 tokens, with ``start`` 0::

        ids        a0 a1 a2  -      b0 b1 c0 c1
        owner       0  0  0  3       1  1  2  2
        positions   0  1  2  0       0  1  0  1
        first       [0, 4, 6]
        lengths     [3, 2, 2]

    Attributes:
        owner: ``[R, L]``, the index of the text that a token belongs to; B for padding.
        positions: ``[R, L]``, the position of a token in its text, counted from ``start``.
        first: ``[B]``, the index of each text's first token in the flattened rows ``[R * L]``.
        lengths: ``[B]``, the number of tokens of each text.
    """

    owner: Any
    positions: Any
    first: Any
    lengths: Any


def assign_rows(lengths: np.ndarray, widest: int, at_least: int = 1) -> list[list[int]]:
    """Distribute texts over rows of about equal length.

    Longest-processing-time rule (Graham 1969, "Bounds on Multiprocessing Timing Anomalies"): texts are taken from the
    longest to the shortest, and each goes to the row with the fewest tokens. The search starts with as many rows as
    :data:`ROW_TOKENS` suggests and adds a row until no row is wider than allowed. Invariant: the heap ``fill`` holds
    the number of tokens of every row, the emptiest row on top.

    Example: lengths 40, 30, 20, 10, 8 are 108 tokens, so 2 rows. The first row gets 40, the second 30 and 20 (50
    tokens), the first 10 (50 tokens) and, as the lower index among equals, 8. The result is ``[[0, 3, 4], [1, 2]]``.

    Args:
        lengths: ``[B]``, tokens of each text.
        widest: Maximum number of tokens per row; a single longer text still gets a row.
        at_least: Minimum number of rows.

    Returns:
        For each row, the indices of its texts in the order of their tokens.
    """
    count = max(at_least, math.ceil(lengths.sum() / ROW_TOKENS))
    order = np.argsort(-lengths, kind="stable").tolist()
    while True:
        rows: list[list[int]] = [[] for _ in range(count)]
        fill = [(0, i) for i in range(count)]
        for text in order:
            tokens, i = heapq.heappop(fill)
            rows[i].append(text)
            heapq.heappush(fill, (tokens + int(lengths[text]), i))
        if max(fill)[0] <= max(widest, lengths.max(initial=1)):
            return rows
        count += 1


def pack(pool: Pool, indices: np.ndarray, widest: int, start: int = 0) -> tuple[np.ndarray, Packing]:
    """Pack texts of a pool into rows.

    Args:
        pool: Pool of texts.
        indices: ``[B]``, the texts to pack.
        widest: Maximum number of tokens per row; a single longer text still gets a row.
        start: Position of a text's first token: 0 for BERT, ``pad_token_id + 1`` for RoBERTa.

    Returns:
        Token ids ``[R, L]``, 0 for padding, and their layout.
    """
    lengths = pool.lengths[indices]
    rows = assign_rows(lengths, widest)
    return _fill(pool, indices, rows, _width(lengths, rows), start)


def pack_sets(pool: Pool, sets: Sequence[np.ndarray], widest: int, start: int = 0) -> tuple[np.ndarray, Packing]:
    """Pack several sets of texts into arrays of one shape, one slice per set, as ``vmap`` needs them.

    Args:
        pool: Pool of texts.
        sets: For each set, the ``[B]`` texts to pack; all sets have the same B.
        widest: Maximum number of tokens per row; a single longer text still gets a row.
        start: Position of a text's first token.

    Returns:
        Token ids ``[sets, R, L]`` and their layout, with ``[sets]`` as the first dimension of every field.
    """
    lengths = [pool.lengths[indices] for indices in sets]
    most = max(len(assign_rows(n, widest)) for n in lengths)
    rows = [assign_rows(n, widest, most) for n in lengths]
    width = max(map(_width, lengths, rows))
    ids, packings = zip(*(_fill(pool, i, r, width, start) for i, r in zip(sets, rows, strict=True)), strict=True)
    return np.stack(ids), Packing(*(np.stack(arrays) for arrays in zip(*packings, strict=True)))


def _width(lengths: np.ndarray, rows: Sequence[Sequence[int]]) -> int:
    """L, the number of tokens of the fullest row."""
    return max(1, max(int(lengths[row].sum()) for row in rows))


def _fill(
    pool: Pool, indices: np.ndarray, rows: Sequence[Sequence[int]], width: int, start: int
) -> tuple[np.ndarray, Packing]:
    """Write the texts of each row from left to right; see :class:`Packing` for an example."""
    lengths = pool.lengths[indices]
    ids = np.zeros((len(rows), width), dtype=np.int64)
    owner = np.full(ids.shape, len(indices))
    positions = np.full_like(ids, start)
    first = np.empty(len(indices), dtype=np.int64)
    for r, texts in enumerate(rows):
        begin = 0
        for text in texts:
            end = begin + lengths[text]
            offset = pool.offsets[indices[text]]
            ids[r, begin:end] = pool.tokens[offset : offset + lengths[text]]
            owner[r, begin:end] = text
            positions[r, begin:end] = start + np.arange(lengths[text])
            first[text] = r * width + begin
            begin = end
    return ids, Packing(owner, positions, first, lengths)
