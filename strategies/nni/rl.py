"""Reinforcement learning with NNI's ``PolicyBasedRL``: proximal policy optimisation (PPO) of a recurrent policy."""

from __future__ import annotations

import numpy as np
from pydantic import Field

from nas_meta import Outcome, PluginOptions, SearchContext
from nas_meta.errors import StrategyError
from strategies.nni.adapter import NNIAdapter

PATIENCE = 30  # invalid or repeated draws in a row, after which NNI's policy ends and neighbours of the best follow


class RLOptions(PluginOptions):
    """Options of ``rl``; defaults of None are derived from the budget."""

    update_every: int | None = Field(
        None, ge=1, description="trials per policy update; by default a fifteenth of all trials, 4 to 20"
    )
    update_times: int = Field(5, ge=1, description="training rounds of the policy per update, on the latest trials")


class RL(NNIAdapter):
    """Reinforcement learning (Zoph & Le 2017): a policy picks the choices, rewarded with the score (NNI, PPO).

    The reward of a trial is its score, standardised by the mean and the standard deviation of all scores so far, so
    that metrics of any scale can be rewards.

    Raises:
        StrategyError: The extra ``nas-meta[rl]`` is not installed.
    """

    Options = RLOptions
    exclusive = True

    def __init__(self, context: SearchContext, options: RLOptions | None = None):
        options = options or RLOptions()
        try:
            import tianshou  # noqa: F401
        except ImportError as error:
            raise StrategyError(
                "strategy 'rl' needs packages that are not installed; install them with pip install 'nas-meta[rl]'"
            ) from error
        self.update_every = options.update_every or min(20, max(4, context.trials // 15))
        super().__init__(context, options)
        self.resolved = {"update_every": self.update_every}

    def reward(self, outcome: Outcome) -> float:
        scores = [*self._scores.values(), *([] if outcome.score is None else [outcome.score])]
        if len(scores) < 2:
            return 0.0
        score = min(scores) if outcome.score is None else outcome.score
        return float((score - np.mean(scores)) / (np.std(scores) + 1e-12))

    def make(self):
        import torch
        from nni.nas.strategy import PolicyBasedRL

        # The policy draws from the global generators of this process.
        torch.manual_seed(self.context.seed)
        np.random.seed(self.context.seed)
        strategy = PolicyBasedRL(
            samples_per_update=self.update_every,
            update_kwargs={"batch_size": 32, "repeat": 5, "update_times": self.options.update_times},
        )
        strategy._invalid_patience = PATIENCE  # private, because NNI 3.0, the last version, has no option for it
        return strategy
