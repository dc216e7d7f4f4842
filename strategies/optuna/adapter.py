"""optuna's samplers behind ask and tell: every choice categorical, nothing invalid, nothing twice."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import optuna
from optuna.trial import Trial, TrialState

from nas_meta import Architecture, Outcome, SearchContext, Strategy
from strategies.shared.mutation import neighbour

optuna.logging.set_verbosity(optuna.logging.ERROR)
warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
DRAWS = 2  # from the sampler, before a neighbour of what it repeats is taken


class OptunaAdapter(Strategy):
    """Runs an optuna sampler; subclasses define :meth:`make`."""

    withdraws = True
    objectives = 1
    """How many objectives the sampler sees, the first ones; None for all."""

    def __init__(self, context: SearchContext, options: Any = None):
        super().__init__(context, options)
        # Several workers ask before they tell: the sampler's own random numbers must not depend on the clock.
        seen = len(context.objectives) if self.objectives is None else self.objectives
        self._study = optuna.create_study(sampler=self.make(), directions=["maximize"] * seen)
        self._objectives = seen
        self._rng = np.random.default_rng(context.seed)
        self._running: dict[str, Trial] = {}
        self._seen: set[str] = set()

    def make(self) -> optuna.samplers.BaseSampler:
        """optuna's sampler with the options and the seed of the search."""
        raise AssertionError("every optuna strategy defines make()")

    def ask(self) -> Architecture | None:
        space = self.context.space
        for _ in range(DRAWS):
            trial, architecture = self._draw()
            if space.problem(architecture) is None and architecture.id not in self._seen:
                return self._handed_out(trial, architecture)
            self._study.tell(trial, state=TrialState.FAIL)
        near = neighbour(space, architecture, self._seen, self._rng)
        if near is None:
            return None
        self._study.enqueue_trial(dict(near.values))
        return self._handed_out(*self._draw())

    def tell(self, outcome: Outcome) -> None:
        trial = self._running.pop(outcome.architecture.id)
        if outcome.values is None:
            self._study.tell(trial, state=TrialState.FAIL)
        else:
            self._study.tell(trial, list(outcome.values[: self._objectives]))

    def withdraw(self, architecture: Architecture) -> None:
        # What failed is no part of any sampler's model.
        self._study.tell(self._running.pop(architecture.id), state=TrialState.FAIL)
        self._seen.discard(architecture.id)

    def _draw(self) -> tuple[Trial, Architecture]:
        trial = self._study.ask()
        kept: dict[str, Any] = {}
        for name, choice in self.context.space.table.items():
            if choice.applies(kept):
                kept[name] = trial.suggest_categorical(name, list(choice.values))
        return trial, self.context.space.canonical(kept)

    def _handed_out(self, trial: Trial, architecture: Architecture) -> Architecture:
        self._seen.add(architecture.id)
        self._running[architecture.id] = trial
        return architecture
