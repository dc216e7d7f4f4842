"""Zero-cost proxies: predict how good a model will become from its initial weights, without training it.

Besides the number of parameters, the baseline, a proxy is included only if it ranks the architectures of some search
space better than that baseline by more than chance explains (``benchmarks/zero_cost.py``).
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nas_meta.evaluation.proxies.base import Proxy

PROXIES = ("untrained", "synflow", "parameters")
"""The names of the proxies; each is a function in the module of the same name."""


def load_proxy(name: str) -> Proxy:
    """Return the proxy of a name.

    Args:
        name: One of :data:`PROXIES`.

    Returns:
        A function that scores an untrained model; higher is better.
    """
    return getattr(import_module(f"{__name__}.{name}"), name)
