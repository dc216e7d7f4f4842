"""Zero-cost scores: how good a model may become, told from its initial weights without training.

Which there are was decided by what they are worth beside the number of parameters (``benchmarks/zero_cost.py``).
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nas_meta.evaluation.proxies.base import Proxy

PROXIES = ("untrained", "synflow", "parameters")
"""Each is a function of that name in a module of that name."""


def load_proxy(name: str) -> Proxy:
    """The score of that name (one of :data:`PROXIES`); the more, the better the model is expected to become."""
    return getattr(import_module(f"{__name__}.{name}"), name)
