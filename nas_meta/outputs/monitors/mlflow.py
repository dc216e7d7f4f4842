"""A logger for MLflow: a run per search and, below it, a run per trial, as for hyperparameter searches of MLflow.

The run of the search has the config as parameters and the best values as metrics. The run of a trial has the choices of
its architecture as parameters, and its metrics. For curves within a trial, see TensorBoard and the log of the trial.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from nas_meta.config.environment import shareable
from nas_meta.journal.leaderboard import Leaderboard
from nas_meta.journal.records import Trial
from nas_meta.outputs.monitors.monitor import Monitor
from nas_meta.outputs.monitors.variables import variables

DATABASE = "mlflow.db"
SEARCH, TRIAL, PARENT = "nas_meta.search", "nas_meta.trial", "mlflow.parentRunId"  # tags
MOST = 100  # parameters of a request
LONGEST = 500  # characters of a parameter
STATUS = {  # MLflow's words for phases of a search and for states of a trial; FAILED for all others
    "done": "FINISHED", "interrupted": "KILLED", "completed": "FINISHED", "stopped": "FINISHED",
}  # fmt: skip
QUIET = {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}
# The driver waits for MLflow. Its own default is to wait for up to minutes if the server does not answer.
PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10"}
Result = TypeVar("Result")


class MlflowLog(Monitor):
    """The MLflow run of a search, and those of its trials; a resumed search continues them.

    Args:
        directory: Run directory.
        created: When the search was created, in seconds since the epoch. With the name of the directory, it identifies
            the search in MLflow.
        document: Config of the search as plain data; MLflow gets it without hooks and the address of the cluster.
        experiment: MLflow experiment; created if it does not exist.
        uri: Tracking server or database; None for ``MLFLOW_TRACKING_URI``, or else a database in the run directory.
    """

    def __init__(
        self, directory: Path, created: float, document: Mapping[str, Any], experiment: str, uri: str | None
    ):  # fmt: skip
        name = directory.resolve().name
        identity = hashlib.sha256(f"{name} {created}".encode()).hexdigest()[:12]
        place = uri or os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{(directory / DATABASE).resolve()}"
        with variables(QUIET | {k: os.environ.get(k, v) for k, v in PATIENCE.items()}):
            from mlflow import MlflowClient

            logging.getLogger("mlflow").setLevel(logging.WARNING)  # it reports every table that it creates
            self._client = MlflowClient(tracking_uri=place)
            found = self._client.get_experiment_by_name(experiment)
            self._experiment = found.experiment_id if found else self._client.create_experiment(experiment)
            known = list(self._runs(f"tags.`{SEARCH}` = '{identity}'"))
            self._trials = {int(r.data.tags[TRIAL]): r.info.run_id for r in known if TRIAL in r.data.tags}
            self._run = next((r.info.run_id for r in known if TRIAL not in r.data.tags), None)
            self._tags = {SEARCH: identity}
            if self._run is None:
                self._run = self._new(name, self._tags, created)
                self._parameters(self._run, flat(shareable(document)))
            else:
                self._client.update_run(self._run, status="RUNNING")

    def trial_end(self, trial: Trial, leaderboard: Leaderboard) -> None:
        """Write the run of the trial, and the best values so far."""
        self._call(lambda: self._write(trial, leaderboard))

    def forget(self, trial: Trial, reason: str) -> None:
        """Delete the run of a trial that is run again."""
        run = self._trials.pop(trial.id, None)
        if run is not None:
            self._call(lambda: self._client.delete_run(run))

    def close(self, leaderboard: Leaderboard, phase: str, error: str | None) -> None:
        self._call(lambda: self._client.set_terminated(self._run, STATUS.get(phase, "FAILED")))

    def _write(self, trial: Trial, leaderboard: Leaderboard) -> None:
        run = self._trials.get(trial.id)
        if run is None:
            tags = {**self._tags, TRIAL: f"{trial.id}", PARENT: f"{self._run}", "status": trial.status}
            run = self._trials[trial.id] = self._new(f"trial {trial.id}", tags, trial.started)
            self._parameters(run, {n: v for n, v in trial.architecture.items() if v is not None})
        ended = trial.finished or trial.started
        self._metrics(run, trial.metrics, ended, trial.fidelity)
        self._client.set_terminated(run, STATUS.get(trial.status, "FAILED"), round(1000 * ended))
        if leaderboard.leader:
            best = {f"best/{name}": value for name, value in leaderboard.leader.metrics.items()}
            self._metrics(self._run, best, ended, leaderboard.finished)

    def _call(self, act: Callable[[], Result]) -> Result:
        """Call the client without its long retries."""
        with variables({k: os.environ.get(k, v) for k, v in PATIENCE.items()}):
            return act()

    def _runs(self, condition: str) -> Iterator[Any]:
        """Yield the runs of the experiment that satisfy a condition."""
        token = None
        while token != "":
            page = self._client.search_runs([self._experiment], condition, max_results=1000, page_token=token)
            yield from page
            token = page.token or ""

    def _new(self, name: str, tags: Mapping[str, str], started: float) -> str:
        """Create a run and return its ID."""
        made = self._client.create_run(self._experiment, round(1000 * started), dict(tags), run_name=name)
        return made.info.run_id

    def _parameters(self, run: str, values: Mapping[str, Any]) -> None:
        from mlflow.entities import Param

        found = [Param(key(name), str(value)[:LONGEST]) for name, value in values.items()]
        for start in range(0, len(found), MOST):
            self._client.log_batch(run, params=found[start : start + MOST])

    def _metrics(self, run: str | None, values: Mapping[str, float], when: float, step: int) -> None:
        from mlflow.entities import Metric

        found = [Metric(key(name), float(value), round(1000 * when), step) for name, value in values.items()]
        self._client.log_batch(run, metrics=found)


def key(name: str) -> str:
    """Return a name as MLflow accepts it.

    Args:
        name: Name of a choice, a metric or a key of the config.
    """
    return re.sub(r"[^\w\-./: ]", "_", name, flags=re.ASCII)


def flat(document: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested plain data with dotted keys.

    Args:
        document: The data.
        prefix: What all keys begin with.

    Returns:
        Values by key, such as ``space.name``; values that are not set are left out.
    """
    found: dict[str, Any] = {}
    for name, value in document.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{name}.")
        elif value is not None:
            found[f"{prefix}{name}"] = value
    return found
