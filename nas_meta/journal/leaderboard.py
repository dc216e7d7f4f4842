"""How the trials of a search stand, kept up to date one by one: nothing here looks through all of them."""

from __future__ import annotations

from bisect import insort
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from nas_meta.core.objectives import Objective
from nas_meta.journal.records import Trial


@dataclass
class Leaderboard:
    """Every trial as it stands now, and what is asked for again and again.

    Attributes:
        trials: by id.
        running: those of them that run.
        counts: how many there are of every status.
        failures: how many failed, by reason.
        ended: ids in the order in which trials ended; one that was run again stands there twice.
    """

    objectives: Sequence[Objective]
    trials: dict[int, Trial] = field(default_factory=dict)
    running: dict[int, Trial] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)
    ended: list[int] = field(default_factory=list)
    _ranked: list[tuple[float, int]] = field(default_factory=list)

    @classmethod
    def of(cls, trials: Iterable[Trial], objectives: Sequence[Objective]) -> Leaderboard:
        """The leaderboard of some trials."""
        leaderboard = cls(objectives)
        for trial in trials:
            leaderboard.put(trial)
        return leaderboard

    @property
    def finished(self) -> int:
        """How many trials have ended, one way or another."""
        return len(self.trials) - len(self.running)

    @property
    def metrics(self) -> list[str]:
        """Names of the metrics that the search optimises."""
        return [objective.metric for objective in self.objectives]

    def put(self, trial: Trial) -> None:
        """A trial as it stands now, in the place of what it was; one that is completed stays so."""
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
            insort(self._ranked, self._place(trial))

    def best(self, count: int) -> list[Trial]:
        """List the completed trials that are best by the first objective.

        Args:
            count: The most trials to list.

        Returns:
            The trials, best first; of equal ones the earlier.
        """
        return [self.trials[number] for _, number in self._ranked[:count]]

    @property
    def leader(self) -> Trial | None:
        """The completed trial that is best by the first objective; of equal ones the earliest."""
        return self.trials[self._ranked[0][1]] if self._ranked else None

    def _count(self, trial: Trial, change: int) -> None:
        self.counts[trial.status] += change
        if trial.error and not trial.metrics:
            self.failures[trial.error] += change

    def _place(self, trial: Trial) -> tuple[float, int]:
        objective = self.objectives[0]
        return -objective.sign * trial.metrics[objective.metric], trial.id
