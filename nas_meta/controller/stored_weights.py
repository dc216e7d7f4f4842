"""The trained weights of the best trials, as files of the run directory."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from nas_meta.core.files import write_atomically
from nas_meta.journal.leaderboard import Leaderboard
from nas_meta.journal.weights import final_weights_path, trials_with_weights, weights_path


class StoredWeights:
    """Weights of the trials that are best by the first objective.

    Args:
        directory: The run directory.
        leaderboard: The trials of the search.
        keep: Number of trials whose weights are kept.
    """

    def __init__(self, directory: Path, leaderboard: Leaderboard, keep: int):
        self.directory, self.leaderboard, self.keep = directory, leaderboard, keep
        self._stored: set[int] = set()  # trials whose weights are on disk

    def restore(self) -> None:
        """Find the weights that an earlier session of the search stored."""
        self._stored |= set(trials_with_weights(self.directory)) & set(self.leaderboard.trials)

    def threshold(self) -> float:
        """Return the signed first objective below which a worker need not send the weights of a trial.

        Returns:
            The value of the worst trial that is kept; minus infinity while there is room.
        """
        objective, ranked = self.leaderboard.objectives[0], self.leaderboard.best(self.keep)
        return objective.sign * ranked[-1].metrics[objective.metric] if len(ranked) == self.keep else -math.inf

    def store(self, trial_id: int, weights: Any) -> None:
        """Write the weights of a trial.

        Args:
            trial_id: The id of the trial.
            weights: Its weights (safetensors).

        Raises:
            OSError: They cannot be written.
        """
        path = weights_path(self.directory, trial_id)
        path.parent.mkdir(exist_ok=True)
        write_atomically(path, weights)
        self._stored.add(trial_id)

    def drop(self) -> None:
        """Delete the weights of trials that are no longer among the best."""
        kept = {trial.id for trial in self.leaderboard.best(self.keep)}
        for number in self._stored - kept - self.leaderboard.running.keys():
            for path in (weights_path(self.directory, number), final_weights_path(self.directory, number)):
                path.unlink(missing_ok=True)
            self._stored.remove(number)
