"""What a trial or a job reports while it runs and when it ends, and the settings of an evaluation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass(frozen=True)
class EvaluationSettings:
    """Settings of validation and meta-test, the same for every trial.

    Attributes:
        episodes: Meta-validation episodes at the end of a trial.
        interim_episodes: Meta-validation episodes of an interim validation.
        interim_every: Meta-training steps between two interim validations; 0 disables them.
        test_episodes: Meta-test episodes.
        flops_tokens: Length of the text for which FLOPs are counted, in tokens.
        seed: Seed of the validation and test episodes.
        rungs: Meta-training steps after which a trial validates and pauses, until the stopping rule has decided whether
            it continues.
        rung_episodes: Meta-validation episodes at a rung.
        protocol: ``episodes``, or ``full-way``, where every number of episodes is one of draws
            (:mod:`nas_meta.evaluation.full_way`).
    """

    episodes: int = 200
    interim_episodes: int = 40
    interim_every: int = 0
    test_episodes: int = 600
    flops_tokens: int = 32
    seed: int = 0
    rungs: Sequence[int] = ()
    rung_episodes: int = 40
    protocol: str = "episodes"


@dataclass(frozen=True)
class Progress:
    """A report of a trial or a job after a step.

    Attributes:
        step: Number of the step, from 1.
        values: Values to log, such as ``loss``, by name.
        checkpoint: State from which another process can resume a job (``uint8``), as
            :func:`nas_meta.models.state.serialize_training` returns it; None at steps without a checkpoint.
        metrics: At a rung, the metrics of the trial if it ends there; else empty.
        scores: At a rung, ``[episodes]``, the accuracy on each validation episode; None elsewhere.
        pretraining: Whether the step belongs to pre-training, before meta-training.
        pretrained: At the end of pre-training, the weights of the model (safetensors, ``uint8``), for reuse by equal
            candidates; None elsewhere.
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
        """Whether the trial waits at a rung for the decision of the stopping rule."""
        return self.scores is not None


@dataclass(frozen=True)
class Result:
    """The result of a trial or of a meta-test.

    Attributes:
        metrics: Everything that was measured, by name (:mod:`nas_meta.evaluation.metrics`).
        weights: The trained weights (safetensors, ``uint8``); None if they are not worth keeping.
        right: Of a meta-test, the number of correct queries in every episode; else empty.
    """

    metrics: Mapping[str, float]
    weights: np.ndarray | None = field(default=None, repr=False)
    right: Sequence[int] = field(default=(), repr=False)


@dataclass(frozen=True)
class JobResult:
    """The result of a strategy's job.

    Attributes:
        findings: Plain data (JSON) for :meth:`Strategy.receive <nas_meta.strategy.protocol.Strategy.receive>`; the
            journal stores it.
        weights: Trained weights, such as those of a supernet (safetensors, ``uint8``); None if there are none.
    """

    findings: Mapping[str, Any]
    weights: np.ndarray | None = field(default=None, repr=False)
