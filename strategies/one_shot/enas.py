"""ENAS: a recurrent controller draws the paths that train, rewarded with their accuracy; NNI's controller."""

from __future__ import annotations

import importlib.util
from collections.abc import Generator, Mapping
from typing import Any

import numpy as np
import torch
from pydantic import Field

from nas_meta import Architecture, ChoiceSupernet, SearchContext
from nas_meta.errors import StrategyError, TrialError
from strategies.nni.adapter import NNISpace
from strategies.one_shot.base import Method, OneShot, OneShotOptions, Training, ranked
from strategies.one_shot.nni_supermodules import SuperModules, paths

PATIENCE = 100  # draws until one is in the space


class ENASOptions(OneShotOptions):
    """Options of ENAS."""

    update_every: int = Field(10, ge=1, description="rewarded architectures between two updates of the controller")
    update_times: int = Field(5, ge=1, description="passes over them in an update")
    controller_lr: float = Field(3e-3, gt=0, description="learning rate of the controller (Adam)")
    warmup: float = Field(0.1, ge=0, lt=1, description="share of the steps in which the controller is not rewarded yet")
    reward_episodes: int = Field(4, ge=1, description="episodes of held-out classes that reward an architecture")
    candidates: int = Field(40, ge=1, description="draws from the trained controller that are judged")
    search_episodes: int = Field(40, ge=2, description="episodes of held-out classes that judge a candidate")


class Controlled(Method):
    """The controller: an LSTM that writes an architecture choice by choice, updated by PPO (NNI's)."""

    def __init__(self, training: Training):
        from functools import partial

        from nni.nas.strategy._rl_impl import TuningTrajectoryGenerator, default_policy_fn
        from tianshou.data import ReplayBuffer

        super().__init__(training)
        np.random.seed(training.seed)  # the policy's batches are drawn from the global generator
        policy = partial(default_policy_fn, lr=self.options.controller_lr)
        self.generator = TuningTrajectoryGenerator(NNISpace(training.space, set()), policy)
        self.buffer = ReplayBuffer(self.generator.expected_trajectory_length * self.options.update_every)
        self.rewarded = 0

    @staticmethod
    def mutate(supernet: ChoiceSupernet) -> SuperModules:
        return paths(supernet)

    @staticmethod
    def extra_steps(options: ENASOptions) -> int:
        return options.candidates

    @property
    def settled(self) -> bool:
        """Right after an update: until the next one, all that it learned from will have been replaced."""
        return self.rewarded % self.options.update_every == 0

    def state(self) -> dict[str, Any]:
        policy = self.generator.policy
        kind, keys, *rest = np.random.get_state()
        return {
            "policy": policy.state_dict(),
            # By name: NNI hands its optimiser a set, whose order another process does not have.
            "optimizer": {
                name: policy.optim.state[p] for name, p in policy.named_parameters() if p in policy.optim.state
            },
            "rewarded": self.rewarded,
            "numpy": [kind, torch.from_numpy(keys.astype(np.int64)), *rest],
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        policy = self.generator.policy
        policy.load_state_dict(state["policy"])
        policy.optim.state.update(
            {p: state["optimizer"][n] for n, p in policy.named_parameters() if n in state["optimizer"]}
        )
        self.rewarded = state["rewarded"]
        kind, keys, *rest = state["numpy"]
        np.random.set_state((kind, keys.numpy().astype(np.uint32), *rest))

    def draw(self) -> Architecture:
        """The controller's next architecture.

        Raises:
            TrialError: it writes none that the space has.
        """
        space = self.training.space
        for _ in range(PATIENCE):
            with torch.no_grad():
                architecture = space.canonical(self.generator.next_sample())
            if space.problem(architecture) is None:
                return architecture
        raise TrialError(f"none of {PATIENCE} architectures that ENAS's controller wrote is in the space")

    def before_weights(self, step: int) -> None:
        self.generator.policy.train()  # it draws; in evaluation mode it would take the most probable
        self.training.modules.follow(self.draw())

    def architecture_step(self, step: int) -> Mapping[str, float]:
        o = self.options
        if step <= o.warmup * o.steps:
            return {}
        self.generator.policy.train()
        architecture = self.draw()
        self.training.modules.follow(architecture)
        tasks = [self.training.upper_episode(step * o.reward_episodes + i) for i in range(o.reward_episodes)]
        reward = float(self.training.learner.accuracies(self.training.encoder, self.training.upper, tasks).mean())
        self.buffer.update(self.generator.send_reward(reward))
        self.rewarded += 1
        if self.rewarded % o.update_every == 0:
            self.generator.policy.update(0, self.buffer, batch_size=32, repeat=o.update_times)
        return {"meta-train/reward": reward}

    def probabilities(self) -> dict[str, list[float]]:
        """Of the last draw: each choice's given those before it."""
        return self.generator.sample_logits or {}

    def derive(self, count: int) -> Generator[Mapping[str, float], None, list[Architecture]]:
        """Draws candidates and ranks them with the weights they inherit (Pham et al. 2018, section 2.3)."""
        scores: dict[Architecture, float] = {}
        for _ in range(self.options.candidates):
            architecture = self.draw()
            if architecture not in scores:
                scores[architecture] = self.training.inherited(architecture, self.options.search_episodes)
            yield {"supernet/best_inherited_accuracy": max(scores.values())}
        return ranked(self.training, scores, count)


class ENAS(OneShot):
    """Pham et al. 2018: one recurrent controller and one set of weights, trained in turn (NNI, PPO).

    Raises:
        StrategyError: the extra ``nas-meta[rl]`` is not installed.
    """

    Options = ENASOptions
    name = "enas"
    method = Controlled

    def __init__(self, context: SearchContext, options: ENASOptions | None = None):
        if importlib.util.find_spec("tianshou") is None:
            raise StrategyError(
                "strategy 'enas' needs packages that are not installed; expected: pip install 'nas-meta[rl]'"
            )
        super().__init__(context, options)
