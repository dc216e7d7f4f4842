"""What a trial or a job reports while it runs and when it ends, and how trials are scored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass(frozen=True)
class EvaluationSettings:
    """How trials are scored: the numbers of episodes and what is measured.

    Attributes:
        rungs: after so many meta-training steps a trial validates on ``rung_episodes`` and waits to hear whether it
            goes on.
    """

    episodes: int = 200
    interim_episodes: int = 40
    interim_every: int = 0
    test_episodes: int = 600
    flops_tokens: int = 32
    seed: int = 0
    rungs: Sequence[int] = ()
    rung_episodes: int = 40


@dataclass(frozen=True)
class Progress:
    """A meta-training step, and what was measured there.

    Attributes:
        checkpoint: of a job what another process can go on with, where it is time to keep that
            (:mod:`nas_meta.checkpoint`).
        metrics: at a rung, what the trial's metrics are if it ends there.
        scores: at a rung, the accuracy of each of the first validation episodes, the same for every trial.
        pretraining: whether it is a step of pre-training: meta-training has yet to begin.
        pretrained: at the end of pre-training, the model's weights (safetensors), for others that are equal to it.
    """

    step: int
    values: Mapping[str, float]
    checkpoint: np.ndarray | None = field(default=None, repr=False)
    metrics: Mapping[str, float] = field(default_factory=dict)
    scores: np.ndarray | None = field(default=None, repr=False)
    pretraining: bool = False
    pretrained: np.ndarray | None = field(default=None, repr=False)

    @property
    def pauses(self) -> bool:
        """Whether the trial goes on only when it is told to."""
        return self.scores is not None


@dataclass(frozen=True)
class Result:
    """The end of a trial: metrics, and the trained weights as safetensors where they were asked for."""

    metrics: Mapping[str, float]
    weights: np.ndarray | None = field(default=None, repr=False)


@dataclass(frozen=True)
class JobResult:
    """The end of a strategy's job: what it found, as plain data for the journal, and weights as safetensors."""

    findings: Mapping[str, Any]
    weights: np.ndarray | None = field(default=None, repr=False)
