"""Subsets of layers that are spread evenly over the depth of a model."""

from __future__ import annotations

from collections.abc import Collection
from itertools import pairwise

import numpy as np


def spread_layers(layers: int, count: int, fixed: Collection[int] = ()) -> list[int]:
    """Choose layers with gaps as even as possible, the first and the last layer among them.

    The fixed layers and both ends divide the depth into stretches. Every further layer goes to the stretch that is
    longest for the layers it has, and the layers of a stretch are spaced evenly.

    Example: 4 of 6 layers are 0, 2, 3, 5, and with layer 2 fixed 0, 2, 4, 5.

    Args:
        layers: Number of layers of the model.
        count: Number of layers to choose, at least that of the fixed ones.
        fixed: Layers that are always chosen.

    Returns:
        ``[count]`` indices in ascending order.
    """
    chosen = set(fixed)
    for end in (0, layers - 1):
        if len(chosen) < count:
            chosen.add(end)
    anchors = sorted(chosen)
    stretches = [(low, high, 0) for low, high in pairwise(anchors)]
    for _ in range(count - len(anchors)):
        room = [(high - low) / (inside + 1) if inside < high - low - 1 else 0.0 for low, high, inside in stretches]
        longest = int(np.argmax(room))
        low, high, inside = stretches[longest]
        stretches[longest] = (low, high, inside + 1)
    for low, high, inside in stretches:
        chosen.update(np.linspace(low, high, inside + 2).round().astype(int).tolist())
    return sorted(chosen)
