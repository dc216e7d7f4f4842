"""Runs an optuna sampler behind nas-meta's ask-and-tell protocol.

Every choice of the space is a categorical parameter of a trial in an in-memory study. A draw that is invalid or was
proposed before is recorded as failed and drawn again, so that no architecture is tried twice.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import optuna
from optuna.distributions import CategoricalDistribution
from optuna.trial import Trial, TrialState

from nas_meta import Architecture, Outcome, SearchContext, Strategy
from strategies.shared.unseen import neighbour

optuna.logging.set_verbosity(optuna.logging.ERROR)
warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
# Draws from the sampler per proposal. If all are invalid or repeated, a neighbour of the last one is proposed.
MAX_DRAWS = 2


class OptunaAdapter(Strategy):
    """Base of the strategies that run an optuna sampler; subclasses define :meth:`make`."""

    learns = True
    withdraws = True
    objectives = 1
    """The number of objectives that the sampler optimises, in the order of the config; None for all."""

    def __init__(self, context: SearchContext, options: Any = None):
        super().__init__(context, options)
        count = len(context.objectives) if self.objectives is None else self.objectives
        self._study = optuna.create_study(sampler=self.make(), directions=["maximize"] * count)
        self._objectives = count
        self._rng = np.random.default_rng(context.seed)
        self._running: dict[str, Trial] = {}
        self._seen: set[str] = set()

    def make(self) -> optuna.samplers.BaseSampler:
        """Return optuna's sampler, with the options and the seed of the search.

        The sampler must be seeded: resuming a search replays its calls and expects the same proposals.
        """
        raise AssertionError("every optuna strategy defines make()")

    def ask(self) -> Architecture | None:
        space = self.context.space
        for _ in range(MAX_DRAWS):
            trial, architecture = self._draw()
            if space.problem(architecture) is None and architecture.id not in self._seen:
                return self._register(trial, architecture)
            self._study.tell(trial, state=TrialState.FAIL)
        near = neighbour(space, architecture, self._seen, self._rng)
        if near is None:
            return None
        self._study.enqueue_trial(dict(near.values))
        return self._register(*self._draw())

    def tell(self, outcome: Outcome) -> None:
        trial = self._running.pop(outcome.architecture.id)
        if outcome.values is None:
            self._study.tell(trial, state=TrialState.FAIL)
        else:
            self._study.tell(trial, list(outcome.values[: self._objectives]))

    def learn(self, outcome: Outcome) -> None:
        if outcome.values is None:
            return
        values = outcome.architecture.values
        table = {name: list(choice.values) for name, choice in self.context.space.table.items() if name in values}
        self._study.add_trial(
            optuna.trial.create_trial(
                params=dict(values),
                distributions={name: CategoricalDistribution(options) for name, options in table.items()},
                values=list(outcome.values[: self._objectives]),
            )
        )

    def withdraw(self, architecture: Architecture) -> None:
        # No sampler learns from failed trials.
        self._study.tell(self._running.pop(architecture.id), state=TrialState.FAIL)
        self._seen.discard(architecture.id)

    def _draw(self) -> tuple[Trial, Architecture]:
        """Let the sampler choose a value for every choice that has an effect."""
        trial = self._study.ask()
        values: dict[str, Any] = {}
        for name, choice in self.context.space.table.items():
            if choice.applies(values):
                values[name] = trial.suggest_categorical(name, list(choice.values))
        return trial, self.context.space.canonical(values)

    def _register(self, trial: Trial, architecture: Architecture) -> Architecture:
        """Remember a proposal until its result is reported, and return it."""
        self._seen.add(architecture.id)
        self._running[architecture.id] = trial
        return architecture
