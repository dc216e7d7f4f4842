"""Short texts side by side in one row, each seeing only itself, so that hardly a token is spent on padding.

Krell et al. 2021, "Efficient Sequence Packing without Cross-contamination": attention is masked to blocks, positions
start again with every text, and the outputs are those of the texts one by one. Diagnoses and intents differ in length
so much that half of a padded batch is padding.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from nas_meta.tasks.pool import Pool

# Tokens that a row should have: attention is quadratic in them, the rest of a layer is not.
ROW = 64


class Packing(NamedTuple):
    """Which token of packed rows is whose; arrays or tensors of whole numbers.

    Attributes:
        owner: ``[R, L]``, the text that a token belongs to, B where there is none.
        positions: ``[R, L]``, of a token in its own text.
        first: ``[B]``, where each text begins in the rows one after the other.
        lengths: ``[B]``, tokens of each text.
    """

    owner: Any
    positions: Any
    first: Any
    lengths: Any


def rows_of(lengths: np.ndarray, widest: int, at_least: int = 1) -> list[list[int]]:
    """Distributes texts over as few rows of about ``ROW`` tokens as none is wider than ``widest``.

    The longest text first, each into the row that has the fewest tokens (Graham 1969, "Bounds on Multiprocessing Timing
    Anomalies").

    Args:
        widest: most tokens in a row; a single text may have more.
        at_least: fewest rows.

    Returns:
        For each row the indices of its texts.
    """
    count = max(at_least, math.ceil(lengths.sum() / ROW))
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
    """Token ids ``[R, L]`` of texts of a pool, and whose they are; ``start`` is the position of a first token."""
    lengths = pool.lengths[indices]
    rows = rows_of(lengths, widest)
    return _filled(pool, indices, rows, _width(lengths, rows), start)


def pack_sets(pool: Pool, sets: Sequence[np.ndarray], widest: int, start: int = 0) -> tuple[np.ndarray, Packing]:
    """:func:`pack` for each of several sets of equally many texts, all in one shape: ``[sets, R, L]``."""
    lengths = [pool.lengths[indices] for indices in sets]
    most = max(len(rows_of(n, widest)) for n in lengths)
    rows = [rows_of(n, widest, most) for n in lengths]
    width = max(map(_width, lengths, rows))
    ids, whose = zip(*(_filled(pool, i, r, width, start) for i, r in zip(sets, rows, strict=True)), strict=True)
    return np.stack(ids), Packing(*(np.stack(arrays) for arrays in zip(*whose, strict=True)))


def _width(lengths: np.ndarray, rows: Sequence[Sequence[int]]) -> int:
    return max(1, max(int(lengths[row].sum()) for row in rows))


def _filled(
    pool: Pool, indices: np.ndarray, rows: Sequence[Sequence[int]], width: int, start: int
) -> tuple[np.ndarray, Packing]:
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
