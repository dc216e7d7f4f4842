"""ENAS: NNI's recurrent controller draws the paths that are trained, and is rewarded with their accuracy."""

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
from strategies.one_shot.base import Method, OneShot, OneShotOptions, Training, top_architectures
from strategies.one_shot.nni_supermodules import SuperModules, paths

MAX_DRAWS = 100  # draws from the controller per architecture, until one satisfies the constraints of the space


class ENASOptions(OneShotOptions):
    """Options of ``enas``."""

    update_every: int = Field(10, ge=1, description="rewarded architectures per update of the controller")
    update_times: int = Field(5, ge=1, description="passes over these architectures per update")
    controller_lr: float = Field(3e-3, gt=0, description="learning rate of Adam for the controller")
    warmup: float = Field(
        0.1, ge=0, lt=1, description="share of the steps, at the start, in which only the weights learn"
    )
    reward_episodes: int = Field(4, ge=1, description="episodes of held-out classes per reward")
    candidates: int = Field(
        40, ge=1, description="draws from the trained controller that are scored after the training"
    )
    search_episodes: int = Field(40, ge=2, description="episodes of held-out classes that score each candidate")


class Controlled(Method):
    """Method whose paths come from a controller: an LSTM that picks choice after choice, updated by PPO (NNI's)."""

    def __init__(self, training: Training):
        from functools import partial

        # Private, because NNI's public ENAS needs Lightning; NNI 3.0 is the last version.
        from nni.nas.strategy._rl_impl import TuningTrajectoryGenerator, default_policy_fn
        from tianshou.data import ReplayBuffer

        super().__init__(training)
        np.random.seed(training.seed)  # the policy draws its batches from the global generator
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
    def can_checkpoint(self) -> bool:
        """Whether the controller was just updated: the buffer, which :meth:`state` leaves out, is then used up."""
        return self.rewarded % self.options.update_every == 0

    def state(self) -> dict[str, Any]:
        policy = self.generator.policy
        kind, keys, *rest = np.random.get_state()
        return {
            "policy": policy.state_dict(),
            # By name: NNI passes its optimiser a set, whose order differs between processes.
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
        """Draw an architecture from the controller.

        Returns:
            The first draw that satisfies the constraints of the space.

        Raises:
            TrialError: None of ``MAX_DRAWS`` draws does.
        """
        space = self.training.space
        for _ in range(MAX_DRAWS):
            with torch.no_grad():
                architecture = space.canonical(self.generator.next_sample())
            if space.problem(architecture) is None:
                return architecture
        raise TrialError(
            f"the last {MAX_DRAWS} architectures of ENAS's controller break the constraints of the space; expected one "
            "that satisfies them; loosen the constraints or use another strategy"
        )

    def before_weights(self, step: int) -> None:
        self.generator.policy.train()  # draws at random; in evaluation mode it would return the most probable
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
        """Probabilities of the last draw: of each choice's values, given the choices before it."""
        return self.generator.sample_logits or {}

    def derive(self, count: int) -> Generator[Mapping[str, float], None, list[Architecture]]:
        """Draw candidates and rank them by their accuracy with inherited weights (Pham et al. 2018, section 2.3)."""
        scores: dict[Architecture, float] = {}
        for _ in range(self.options.candidates):
            architecture = self.draw()
            if architecture not in scores:
                scores[architecture] = self.training.inherited_accuracy(architecture, self.options.search_episodes)
            yield {"supernet/best_inherited_accuracy": max(scores.values())}
        return top_architectures(self.training, scores, count)


class ENAS(OneShot):
    """ENAS (Pham et al. 2018): a recurrent controller and a supernet, trained in turn (NNI, PPO).

    Raises:
        StrategyError: The extra ``nas-meta[rl]`` is not installed.
    """

    Options = ENASOptions
    name = "enas"
    method = Controlled

    def __init__(self, context: SearchContext, options: ENASOptions | None = None):
        if importlib.util.find_spec("tianshou") is None:
            raise StrategyError(
                "strategy 'enas' needs packages that are not installed; install them with pip install 'nas-meta[rl]'"
            )
        super().__init__(context, options)
