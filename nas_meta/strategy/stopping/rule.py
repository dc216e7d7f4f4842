"""What a stopping rule is: it gets a report of every trial at every rung and decides whether the trial continues.

A rule is a function of the reports so far, in their order: the same reports lead to the same decisions. So a resumed
search replays them, and a finished search can be replayed through another rule.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from pydantic import Field

from nas_meta.core.objectives import Objective
from nas_meta.core.options import PluginOptions
from nas_meta.errors import ConfigError

DEFAULT_RUNGS = 2  # validation costs time too: two early rungs save most of the steps, see benchmarks/stopping.py


@dataclass(frozen=True)
class RungReport:
    """A trial at a rung.

    Attributes:
        trial: The id of the trial.
        step: The rung, in meta-training steps.
        values: The value of every objective at the rung, signed so that higher is better.
        scores: ``[episodes]``, the accuracy on each of the first validation episodes, the same for every trial.
    """

    trial: int
    step: int
    values: Sequence[float]
    scores: np.ndarray = field(repr=False)


class RungOptions(PluginOptions):
    """Options of every stopping rule that judges trials at rungs."""

    rungs: list[int] | None = Field(
        None, description="meta-training steps after which trials are judged; by default steps/eta² and steps/eta"
    )
    eta: float = Field(4.0, gt=1, description="factor between one default rung and the next")
    episodes: int | None = Field(
        None, ge=2, description="validation episodes at a rung; by default evaluation.interim_episodes"
    )

    def resolved(self, steps: int, episodes: int) -> RungOptions:
        """Fill in the defaults that depend on other sections.

        Args:
            steps: The most meta-training steps that a trial may take.
            episodes: Validation episodes at a rung where the options leave them open.

        Returns:
            The same options with ``rungs`` and ``episodes`` set.

        Raises:
            ConfigError: No rung lies between the first and the last step of a trial.
        """
        if self.rungs is None:
            rungs = sorted({max(1, round(steps / self.eta**k)) for k in range(1, DEFAULT_RUNGS + 1)} - {steps})
        else:
            rungs = sorted(set(self.rungs))
        if not rungs:
            raise ConfigError(
                f"with learner.steps: {steps} no trial can be stopped early; expected more steps, or stopping: none"
            )
        if rungs[0] < 1 or rungs[-1] >= steps:
            wrong = rungs[0] if rungs[0] < 1 else rungs[-1]
            raise ConfigError(
                f"stopping.rungs has {wrong}, but trials take {steps} steps (learner.steps); "
                f"expected rungs from 1 to {steps - 1}"
            )
        return self.model_copy(update={"rungs": rungs, "episodes": self.episodes or episodes})


class StoppingRule(ABC):
    """A stopping rule plugin; subclasses define :meth:`should_continue`.

    Args:
        options: Options of the rule; by default those of its ``Options``.
        objectives: What the search optimises, in the order of :attr:`RungReport.values`.
    """

    Options: type[PluginOptions] = RungOptions

    def __init__(self, options: Any = None, objectives: Sequence[Objective] = (Objective("accuracy"),)):
        self.options = options if options is not None else self.Options()
        self.objectives = objectives
        self.stopped: set[int] = set()
        """Ids of the trials that this rule has stopped."""
        self._reports: dict[int, dict[int, RungReport]] = defaultdict(dict)  # by step, then by trial

    @abstractmethod
    def should_continue(self, report: RungReport, others: Sequence[RungReport]) -> bool:
        """Decide whether a trial continues beyond a rung.

        Args:
            report: The trial at the rung.
            others: The reports of all trials that reached this rung before it, in their order.

        Returns:
            Whether the trial continues; if not, it ends with the metrics that it has at the rung.
        """

    def decide(self, report: RungReport) -> bool:
        """Record a report and decide whether its trial continues.

        Args:
            report: The trial at the rung.

        Returns:
            What :meth:`should_continue` says.
        """
        others = [r for trial, r in self._reports[report.step].items() if trial != report.trial]
        self._reports[report.step][report.trial] = report
        continues = self.should_continue(report, others)
        if not continues:
            self.stopped.add(report.trial)
        return continues

    def recall(self, report: RungReport, continued: bool) -> None:
        """Record a report that an earlier process of the search decided on.

        Args:
            report: The trial at the rung.
            continued: The decision.
        """
        self._reports[report.step][report.trial] = report
        if not continued:
            self.stopped.add(report.trial)

    def forget(self, trial: int) -> None:
        """Drop the reports of a trial that failed or is run again.

        Args:
            trial: The id of the trial.
        """
        for rung in self._reports.values():
            rung.pop(trial, None)


class NeverOptions(PluginOptions):
    """Options of the rule that never stops a trial: none."""

    rungs: ClassVar[Sequence[int]] = ()
    episodes: ClassVar[int] = 0

    def resolved(self, steps: int, episodes: int) -> NeverOptions:
        """Return these options: there is nothing to fill in.

        Args:
            steps: Not used.
            episodes: Not used.

        Returns:
            The same options.
        """
        return self


class Never(StoppingRule):
    """Never stops a trial early."""

    Options = NeverOptions

    def should_continue(self, report: RungReport, others: Sequence[RungReport]) -> bool:
        return True
