"""A private state of the global random generators, for code that draws from them."""

from __future__ import annotations

import random
from typing import Any

import numpy as np


class GlobalRandomness:
    """Context in which the global generators of ``random``, numpy and torch continue where they were at its last exit.

    Outside of the context they are as if nothing had been drawn inside. Only one thread may draw at a time.
    """

    def __init__(self) -> None:
        self._inside: Any = None
        self._outside: Any = None

    def __enter__(self) -> None:
        self._outside = _state()
        if self._inside is not None:
            _restore(self._inside)

    def __exit__(self, *error: Any) -> None:
        self._inside = _state()
        _restore(self._outside)


def _state() -> Any:
    import torch

    return random.getstate(), np.random.get_state(), torch.get_rng_state()


def _restore(state: Any) -> None:
    import torch

    random.setstate(state[0])
    np.random.set_state(state[1])
    torch.set_rng_state(state[2])
