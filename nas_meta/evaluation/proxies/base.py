"""The interface of zero-cost proxies: what they are called with, and what they return."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from nas_meta.learners.base import Learner
from nas_meta.models.encoder import Encoder
from nas_meta.tasks.episodes import Episode
from nas_meta.tasks.pool import Pool


@dataclass(frozen=True)
class ProxyInputs:
    """The data and the learner with which a proxy scores a model.

    Attributes:
        pool: The meta-train examples.
        tasks: Episodes drawn from the pool.
        learner: The learner of the search.
    """

    pool: Pool
    tasks: Sequence[Episode]
    learner: Learner


Proxy = Callable[[Encoder, ProxyInputs], float]
"""Scores an untrained model, which is in evaluation mode; higher is better."""
