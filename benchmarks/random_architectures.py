"""Distinct random architectures of a search space."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np


def sample_distinct(space: Any, count: int, seed: int, accept: Callable[[Any], bool] = lambda _: True) -> list[Any]:
    """Samples architectures until enough distinct ones are accepted.

    Args:
        space: prepared search space.
        count: number of architectures to return.
        seed: seed of the random generator.
        accept: predicate that an architecture must satisfy.

    Returns:
        The first ``count`` accepted architectures, in sampling order.
    """
    rng, found = np.random.default_rng(seed), {}
    while len(found) < count:
        architecture = space.sample(rng)
        if accept(architecture):
            found[architecture.id] = architecture
    return list(found.values())
