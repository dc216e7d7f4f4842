"""Reinforcement learning: NNI's ``PolicyBasedRL``, proximal policy optimisation over a recurrent policy."""

from __future__ import annotations

import numpy as np
from pydantic import Field

from nas_meta import Outcome, PluginOptions, SearchContext
from nas_meta.errors import StrategyError
from strategies.nni.adapter import NNIAdapter

PATIENCE = 30  # draws that the policy may repeat itself before its neighbourhood is tried


class RLOptions(PluginOptions):
    """Options of reinforcement learning; what is left out follows from the budget."""

    update_every: int | None = Field(None, ge=1, description="trials between updates; by default a fifteenth of all")
    update_times: int = Field(5, ge=1, description="passes over what is known in an update")


class RL(NNIAdapter):
    """A policy that writes architectures choice by choice, rewarded with their score (Zoph & Le 2017; NNI, PPO).

    The reward is the score in standard deviations from the mean of all so far, so that any metric can be one.

    Raises:
        StrategyError: the extra ``nas-meta[rl]`` is not installed.
    """

    Options = RLOptions

    def __init__(self, context: SearchContext, options: RLOptions | None = None):
        options = options or RLOptions()
        try:
            import tianshou  # noqa: F401
        except ImportError as error:
            raise StrategyError(
                "strategy 'rl' needs packages that are not installed; expected: pip install 'nas-meta[rl]'"
            ) from error
        self.update_every = options.update_every or min(20, max(4, context.trials // 15))
        super().__init__(context, options)
        self.resolved = {"update_every": self.update_every}

    def reward(self, outcome: Outcome) -> float:
        known = [*self._scores.values(), *([] if outcome.score is None else [outcome.score])]
        if len(known) < 2:
            return 0.0
        score = min(known) if outcome.score is None else outcome.score
        return float((score - np.mean(known)) / (np.std(known) + 1e-12))

    def make(self):
        import torch
        from nni.nas.strategy import PolicyBasedRL

        # The policy draws from the global generators of this process, the driver, which draws nothing else.
        torch.manual_seed(self.context.seed)
        np.random.seed(self.context.seed)
        strategy = PolicyBasedRL(
            samples_per_update=self.update_every,
            update_kwargs={"batch_size": 32, "repeat": 5, "update_times": self.options.update_times},
        )
        strategy._invalid_patience = PATIENCE
        return strategy
