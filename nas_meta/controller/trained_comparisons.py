"""Models that are trained like the best trial, so that a user sees what the search adds to the obvious alternatives.

They cost as much as trials: the journal keeps each of them as soon as it is tested, so that a resumed search trains
only those that it lacks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nas_meta.controller.calls import Call
from nas_meta.core.guard import plugin_call
from nas_meta.evaluation.final_training import FinalTraining
from nas_meta.journal.database import Journal
from nas_meta.journal.records import Trial
from nas_meta.journal.row_checks import TrainedComparison, validated
from nas_meta.space.architecture import Architecture
from nas_meta.space.search_space import SearchSpace

COMPARISONS = "comparisons"  # key of the journal


class TrainedComparisons:
    """The comparisons of one trial: which are still to be trained, and the results of the others.

    Args:
        journal: The journal of the run.
        trial: The trial to compare, whose hyperparameters and seed they share.
        final: The final training of the trial, which they go through, too; None without one.
        options: The options of that final training, which the journal records.

    Attributes:
        known: What the journal holds of the comparisons that :meth:`calls` returned no call for, by name.
    """

    def __init__(
        self, journal: Journal, trial: Trial, final: FinalTraining | None = None,
        options: Mapping[str, Any] | None = None,
    ):  # fmt: skip
        self._journal, self._trial, self._final, self._options = journal, trial, final, options
        self._rows: dict[str, Architecture] = {}
        self.known: dict[str, dict[str, Any]] = {}

    def calls(self, space: SearchSpace) -> list[Call]:
        """Return the calls that train and test what the journal lacks.

        Args:
            space: The search space, which names the comparisons.

        Raises:
            PluginError: The space raises another exception, or returns anything but architectures by name.
        """
        with plugin_call(space, "comparisons"):
            rows = space.comparisons(Architecture(self._trial.architecture))
            self._rows = {str(name): Architecture(row.values) for name, row in rows.items()}
        for row in validated(list[TrainedComparison], self._journal.get(COMPARISONS, []), COMPARISONS):
            same = self._rows.get(row["name"]) == Architecture(row["architecture"])
            if same and row["seed"] == self._trial.seed and row.get("final") == self._options:
                self.known[row["name"]] = row
        return [
            Call(("comparisons", name), "compare", (architecture, self._trial.seed, self._final))
            for name, architecture in self._rows.items()
            if name not in self.known
        ]

    def keep(self, name: str, metrics: Mapping[str, float], right: Sequence[int]) -> None:
        """Write a result to the journal.

        Args:
            name: Name of the comparison.
            metrics: Its meta-test metrics.
            right: Correct queries per episode.
        """
        self.known[name] = {
            "name": name, "architecture": dict(self._rows[name].values), "seed": self._trial.seed,
            "metrics": dict(metrics), "right": list(right), "final": self._options,
        }  # fmt: skip
        self._journal.set(COMPARISONS, list(self.known.values()))
