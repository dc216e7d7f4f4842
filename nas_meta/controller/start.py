"""What a trial starts from: the weights of the space, those of the strategy, or pre-trained ones."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from nas_meta.core.guard import plugin_call
from nas_meta.space.architecture import Architecture
from nas_meta.strategy.protocol import Strategy


class Start(NamedTuple):
    """What a trial starts from; all None if it starts from the weights of the space, or pre-trains without a donor.

    Attributes:
        weights: Weights of the same architecture, from the strategy or pre-trained (safetensors).
        donor: Weights of another architecture (safetensors), from which the trial's own pre-training inherits.
        steps: Training steps, if not those of the learner.
    """

    weights: np.ndarray | None = None
    donor: np.ndarray | None = None
    steps: int | None = None


def start_of_strategy(strategy: Strategy, architecture: Architecture, steps: int) -> Start:
    """Return the weights with which a strategy starts a trial, and the number of steps that it then trains.

    Args:
        strategy: The strategy.
        architecture: The architecture of the trial.
        steps: The steps of the learner.

    Raises:
        PluginError: The strategy raised an exception.
    """
    with plugin_call(strategy, "start_of"):
        weights = strategy.start_of(architecture)
    if weights is None:
        return Start()
    with plugin_call(strategy, "trial_steps"):
        return Start(weights, steps=strategy.trial_steps(steps))
