"""Random architectures of a space, none twice."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np


def drawn(space: Any, count: int, seed: int, fits: Callable[[Any], bool] = lambda _: True) -> list[Any]:
    """The first ``count`` that fit, in the order in which they are drawn."""
    rng, found = np.random.default_rng(seed), {}
    while len(found) < count:
        architecture = space.sample(rng)
        if fits(architecture):
            found[architecture.id] = architecture
    return list(found.values())
