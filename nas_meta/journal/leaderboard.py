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
        leader: the completed one that is best by the first objective; of equal ones the earlier.
    """

    objectives: Sequence[Objective]
    trials: dict[int, Trial] = field(default_factory=dict)
    running: dict[int, Trial] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)
    ended: list[int] = field(default_factory=list)
    leader: Trial | None = None
    _by_accuracy: list[tuple[float, int]] = field(default_factory=list)

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
            insort(self._by_accuracy, (-trial.metrics["accuracy"], trial.id))
            if self.leader is None or self._place(trial) < self._place(self.leader):
                self.leader = trial

    def best(self, count: int) -> list[Trial]:
        """The most accurate completed trials; of equal ones the earlier stand first."""
        return [self.trials[number] for _, number in self._by_accuracy[:count]]

    def _count(self, trial: Trial, change: int) -> None:
        self.counts[trial.status] += change
        if trial.error and not trial.metrics:
            self.failures[trial.error] += change

    def _place(self, trial: Trial) -> tuple[float, int]:
        objective = self.objectives[0]
        return -objective.sign * trial.metrics[objective.metric], trial.id
