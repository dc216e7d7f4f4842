"""The trials of a search with their ranking and counts, updated in place as each trial changes.

No update looks through all trials, so its cost stays small in searches of many thousands.
"""

from __future__ import annotations

import math
from bisect import insort
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from nas_meta.core.objectives import Objective
from nas_meta.journal.records import Trial


@dataclass
class Leaderboard:
    """Every trial in its current state, and summaries of them.

    Attributes:
        objectives: What the search optimises; the first objective ranks trials.
        trials: Trials by id.
        running: Running trials by id.
        counts: Number of trials by status.
        failures: Number of failed trials by reason.
        ended: Ids in the order in which trials ended; a trial that was rerun is listed twice.
    """

    objectives: Sequence[Objective]
    trials: dict[int, Trial] = field(default_factory=dict)
    running: dict[int, Trial] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)
    ended: list[int] = field(default_factory=list)
    _ranked: list[tuple[float, ...]] = field(default_factory=list)

    @classmethod
    def of(cls, trials: Iterable[Trial], objectives: Sequence[Objective]) -> Leaderboard:
        """Return the leaderboard of trials.

        Args:
            trials: The trials, in the order of their start.
            objectives: What the search optimises.

        Returns:
            The leaderboard.
        """
        leaderboard = cls(objectives)
        for trial in trials:
            leaderboard.put(trial)
        return leaderboard

    @property
    def finished(self) -> int:
        """The number of trials that have ended, with any status."""
        return len(self.trials) - len(self.running)

    @property
    def metrics(self) -> list[str]:
        """The names of the metrics that the search optimises."""
        return [objective.metric for objective in self.objectives]

    def put(self, trial: Trial) -> None:
        """Add a trial, or replace its earlier state.

        Args:
            trial: The trial in its current state. A completed trial is final and must not be put again.
        """
        if trial.id in self.trials:
            self._count(self.trials[trial.id], -1)
        self._count(trial, 1)
        self.trials[trial.id] = trial
        if trial.status == "running":
            self.running[trial.id] = trial
            return
        self.running.pop(trial.id, None)
        self.ended.append(trial.id)
        if trial.status == "completed":
            insort(self._ranked, place(trial, self.objectives))

    def best(self, count: int) -> list[Trial]:
        """List the completed trials that are best by the first objective.

        Args:
            count: The largest number of trials to list.

        Returns:
            The trials, best first; equal ones as :func:`place` orders them.
        """
        return [self.trials[int(number)] for *_, number in self._ranked[:count]]

    @property
    def leader(self) -> Trial | None:
        """The best completed trial, as :func:`place` orders them; None without one."""
        return next(iter(self.best(1)), None)

    def _count(self, trial: Trial, change: int) -> None:
        self.counts[trial.status] += change
        if trial.error and not trial.metrics:
            self.failures[trial.error] += change


def place(trial: Trial, objectives: Sequence[Objective]) -> tuple[float, ...]:
    """Return the key by which trials are sorted, best first.

    Trials that are equal in the first objective are ordered by the second, and so on, so that the best trial is always
    on the Pareto front. Of trials that are equal in all of them, the earlier is first.

    Args:
        trial: A completed trial, with a value for the first objective; one without a value for another is last.
        objectives: What the search optimises.
    """
    first, *others = objectives
    further = (-o.sign * trial.metrics[o.metric] if o.metric in trial.metrics else math.inf for o in others)
    return -first.sign * trial.metrics[first.metric], *further, trial.id
