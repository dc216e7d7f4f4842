"""What a zero-cost proxy gets, and the type of one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from nas_meta.learners.base import Learner
from nas_meta.models.encoder import Encoder
from nas_meta.tasks.episodes import Episode
from nas_meta.tasks.pool import Pool


@dataclass(frozen=True)
class ProxyInputs:
    """Some meta-train episodes, and the learner whose loss on them counts.

    Attributes:
        pool: the meta-train texts.
    """

    pool: Pool
    tasks: Sequence[Episode]
    learner: Learner


Proxy = Callable[[Encoder, ProxyInputs], float]
"""Of an untrained model in evaluation mode."""
