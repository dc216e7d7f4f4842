"""What a stopping rule is: it hears of every trial at every rung and says whether the trial goes on.

A rule is a function of the reports so far, in their order: the same reports bring the same decisions, so that a resumed
search replays them, and a finished one can be replayed through another rule.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from nas_meta.core.objectives import Objective
from nas_meta.core.options import PluginOptions
from nas_meta.errors import ConfigError

DEFAULT_RUNGS = 2  # validation costs time too: two early ones save most of the steps, see benchmarks/stopping.py


@dataclass(frozen=True)
class Report:
    """A trial at a rung.

    Attributes:
        trial: its id.
        step: the rung: meta-training steps that it was trained for.
        values: every objective as it stands there, signed so that more is better.
        scores: ``[episodes]`` accuracy on each of the first validation episodes, the same for every trial.
    """

    trial: int
    step: int
    values: Sequence[float]
    scores: np.ndarray = field(repr=False)


class StoppingOptions(PluginOptions):
    """The ``stopping`` section of a config."""

    name: str = Field("none", description="rule by which trials are stopped early: none, asha, median or racing")

    def resolved(self, steps: int, episodes: int) -> StoppingOptions:
        """These options with defaults filled in.

        Args:
            steps: the most meta-training steps that a trial may take.
            episodes: validation episodes at a rung where the options leave it open.

        Raises:
            ConfigError: no trial would be trained beyond a rung.
        """
        return self


class RuleOptions(StoppingOptions):
    """Options that every rule has."""

    rungs: list[int] | None = Field(
        None, description="judge after so many meta-training steps; by default steps/eta² and steps/eta"
    )
    eta: float = Field(4.0, gt=1, description="the factor from one of the default rungs to the next")
    episodes: int | None = Field(
        None, ge=2, description="validation episodes at a rung; by default evaluation.interim_episodes"
    )

    def resolved(self, steps: int, episodes: int) -> RuleOptions:
        if self.rungs is None:
            rungs = sorted({max(1, round(steps / self.eta**k)) for k in range(1, DEFAULT_RUNGS + 1)} - {steps})
        else:
            rungs = sorted(set(self.rungs))
        if not rungs:
            raise ConfigError(
                f"stopping.name is '{self.name}', but with learner.steps: {steps} there is nothing to stop; "
                "expected more steps, or stopping: none"
            )
        if rungs[0] < 1 or rungs[-1] >= steps:
            wrong = rungs[0] if rungs[0] < 1 else rungs[-1]
            raise ConfigError(
                f"stopping.rungs has {wrong}, but trials take {steps} steps (learner.steps); "
                f"expected rungs from 1 to {steps - 1}"
            )
        return self.model_copy(update={"rungs": rungs, "episodes": self.episodes or episodes})


class Rule(ABC):
    """Decides on one trial after the other; subclasses define :meth:`goes_on`."""

    Options: type[StoppingOptions] = RuleOptions

    def __init__(self, options: Any = None, objectives: Sequence[Objective] = (Objective("accuracy"),)):
        self.options = options if options is not None else self.Options()
        self.objectives = objectives
        self.stopped: set[int] = set()
        """Trials that this rule has stopped."""
        self._reports: dict[int, dict[int, Report]] = defaultdict(dict)  # by step, then by trial

    def decide(self, report: Report) -> bool:
        """Takes in a report, and says whether its trial goes on."""
        others = [r for trial, r in self._reports[report.step].items() if trial != report.trial]
        self._reports[report.step][report.trial] = report
        go_on = self.goes_on(report, others)
        if not go_on:
            self.stopped.add(report.trial)
        return go_on

    def recall(self, report: Report, went_on: bool) -> None:
        """Takes in a report that was decided on before, when the search was another process."""
        self._reports[report.step][report.trial] = report
        if not went_on:
            self.stopped.add(report.trial)

    def forget(self, trial: int) -> None:
        """A trial has failed, or is run again: what it reported is no measure for others."""
        for rung in self._reports.values():
            rung.pop(trial, None)

    @abstractmethod
    def goes_on(self, report: Report, others: Sequence[Report]) -> bool:
        """Whether a trial goes on, given the reports of all others that reached this rung before it."""


class NoOptions(StoppingOptions):
    name: Literal["none"] = "none"
    rungs: ClassVar[Sequence[int]] = ()
    episodes: ClassVar[int] = 0


class Never(Rule):
    """Every trial is trained to its end."""

    Options = NoOptions

    def goes_on(self, report: Report, others: Sequence[Report]) -> bool:
        return True
