"""Metrics of a search for Prometheus, served by the exporter of the Ray cluster that runs the search.

Ray's agent on the driver's node serves them at ``/metrics``: ``ray_nas_meta_trials`` by status,
``ray_nas_meta_trials_finished_total``, ``ray_nas_meta_busy_workers`` and ``ray_nas_meta_best``, each labelled with the
name of the run directory. They disappear at the end of the search, when Ray stops.
"""

from __future__ import annotations

from nas_meta.core.objectives import Objective
from nas_meta.journal.leaderboard import Leaderboard
from nas_meta.journal.records import Trial
from nas_meta.outputs.monitors.monitor import Monitor

STATUSES = ("running", "completed", "failed", "stopped", "timed-out")


class PrometheusMetrics(Monitor):
    """Updates the metrics of a search in Ray.

    Can be created before Ray starts, because nothing is sent until the first trial starts.

    Args:
        run: Name of the run directory, the label of every metric.
        objective: First objective of the search.
    """

    def __init__(self, run: str, objective: Objective):
        from ray.util import metrics

        self._run, self._objective = {"run": run}, objective
        self._trials = metrics.Gauge("nas_meta_trials", "number of trials by status", ("run", "status"))
        self._best = metrics.Gauge("nas_meta_best", "best value of the first objective", ("run", "metric"))
        self._busy = metrics.Gauge("nas_meta_busy_workers", "number of workers that run a trial", ("run",))
        self._finished = metrics.Counter("nas_meta_trials_finished", "trials ended since the driver started", ("run",))
        self._running: set[int] = set()

    def trial_start(self, trial: Trial) -> None:
        self._running.add(trial.id)
        self._update_running()

    def trial_end(self, trial: Trial, leaderboard: Leaderboard) -> None:
        self._running.discard(trial.id)
        self._finished.inc(1, self._run)
        for status in STATUSES[1:]:
            self._trials.set(leaderboard.counts[status], {**self._run, "status": status})
        if leaderboard.leader:
            metric = self._objective.metric
            self._best.set(leaderboard.leader.metrics[metric], {**self._run, "metric": metric})
        self._update_running()

    def forget(self, trial: Trial, reason: str) -> None:
        self._running.discard(trial.id)

    def _update_running(self) -> None:
        self._trials.set(len(self._running), {**self._run, "status": "running"})
        self._busy.set(len(self._running), self._run)
