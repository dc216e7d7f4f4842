"""The results of a run that can be compared with each other: trials that were judged after equally many steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nas_meta.core.objectives import Objective, signed_values
from nas_meta.journal.records import Trial
from nas_meta.journal.run import Run
from nas_meta.strategy.stopping.rule import RungReport

MOST = 5000  # results; beyond that, an evenly spread sample is as good


@dataclass(frozen=True)
class Results:
    """Architectures with their values of the objectives.

    Attributes:
        trials: IDs of the trials.
        architectures: Their architectures.
        values: ``[trials, objectives]``, signed so that higher is better.
        step: The rung at which they were compared; None if they are completed trials.
    """

    trials: Sequence[int]
    architectures: Sequence[Mapping[str, Any]]
    values: np.ndarray
    step: int | None = None

    def __len__(self) -> int:
        return len(self.trials)

    @property
    def named(self) -> str:
        """What the results are, in words."""
        return f"{len(self)} completed trials" if self.step is None else f"{len(self)} trials at step {self.step}"


def results_of(run: Run) -> Results:
    """Return the results of a run that explanations are computed from.

    Args:
        run: The run.

    Returns:
        See :func:`comparable`.
    """
    return comparable(run.trials, [report for report, _ in run.rung_reports], run.objectives)


def comparable(trials: Sequence[Trial], reports: Sequence[RungReport], objectives: Sequence[Objective]) -> Results:
    """Choose results that can be compared: completed trials or, if most were stopped early, all trials at a rung.

    Args:
        trials: Trials of any status.
        reports: What they reported at rungs.
        objectives: The objectives.

    Returns:
        The completed trials if they are at least half of the trials with results; otherwise the trials that reported
        at the rung with the most reports, the last of such rungs.
    """
    done = {
        t.id: np.array(signed_values(t.metrics, objectives))
        for t in trials
        if t.status == "completed" and all(o.metric in t.metrics for o in objectives)
    }
    step, rungs = None, dict[int, dict[int, np.ndarray]]()
    for report in reports:
        if len(report.values) == len(objectives):
            rungs.setdefault(report.step, {})[report.trial] = np.array(report.values, dtype=float)
    if rungs:
        fullest = max(rungs, key=lambda s: (len(rungs[s]), s))
        if len(rungs[fullest]) > 2 * len(done):
            step, done = fullest, rungs[fullest]
    architectures = {t.id: t.architecture for t in trials}
    ids = [i for i, values in sorted(done.items()) if i in architectures and np.isfinite(values).all()]
    if len(ids) > MOST:
        ids = [ids[i] for i in np.linspace(0, len(ids) - 1, MOST).astype(int)]
    values = np.array([done[i] for i in ids]).reshape(len(ids), len(objectives))
    return Results(ids, [architectures[i] for i in ids], values, step)
