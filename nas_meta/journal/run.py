"""The run directory: created for a new run, and opened to read the config, the trials, the best and the report."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field, ValidationError

from nas_meta.config.fingerprints.environment import Environment
from nas_meta.config.fingerprints.fingerprint import Fingerprint
from nas_meta.config.given_data import with_own_data
from nas_meta.config.plugin_trust import refuse_plugin_files
from nas_meta.config.resolved import ResolvedConfig, resolve
from nas_meta.config.sections import Config
from nas_meta.core.objectives import Objective, pareto_front, signed_values
from nas_meta.errors import ConfigError, RunError, nearest
from nas_meta.evaluation.metrics import metric_of
from nas_meta.journal.database import Journal
from nas_meta.journal.final_training import final_results, final_sentence
from nas_meta.journal.fingerprints import recorded_environments, recorded_fingerprint
from nas_meta.journal.leaderboard import place
from nas_meta.journal.records import Trial
from nas_meta.journal.row_checks import MetaTest, recorded_config, validated
from nas_meta.journal.verdict import verdict_of
from nas_meta.journal.weights import read_weights
from nas_meta.strategy.stopping.rule import RungReport

SUPERNET = "supernet.safetensors"
CHECKPOINT = "supernet.checkpoint"  # exists while a supernet is in training


@dataclass(frozen=True)
class StepTotals:
    """Meta-training steps of all trials that have ended.

    Attributes:
        taken: Steps that the trials took.
        planned: Steps that they would have taken if no stopping rule had ended them early.
    """

    taken: int
    planned: int

    @property
    def saved(self) -> float:
        """The share of planned steps that were saved, from 0 to 1."""
        return 1 - self.taken / self.planned if self.planned else 0.0


@dataclass(frozen=True)
class Run:
    """A search and its results, read from its directory; also while the search still runs.

    Attributes:
        directory: The run directory.
        allow_plugins: Whether the code of plugin files that the run's config names may be run.
    """

    directory: Path
    allow_plugins: bool = False

    @cached_property
    def _journal(self) -> Journal:
        return Journal.open(self.directory)

    @cached_property
    def config(self) -> ResolvedConfig:
        """The config that the search ran with.

        Raises:
            PluginError: The config names a plugin file, whose code would be run.
            RunError: The journal has lost the config.
        """
        document = self.recorded
        if not self.allow_plugins:
            refuse_plugin_files(document, self.directory)
        from nas_meta.config.pretraining import with_run_artifacts

        return with_run_artifacts(resolve(document, recorded=True), self.directory)

    @property
    def recorded(self) -> dict[str, Any]:
        """The config in the journal as plain data; reading it runs no code of plugins."""
        return with_own_data(recorded_config(self._journal.get("config")), self.directory)

    @property
    def trials(self) -> list[Trial]:
        """Every trial, in the order of their start."""
        return self._journal.trials()

    def listed(self, last: int | None = None, sort: str | None = None) -> list[Trial]:
        """Return some trials without reading the others: the last ones, or the best by a metric.

        Args:
            last: The largest number of trials; by default all.
            sort: The metric to sort by, best first; by default trials are in the order of their start.

        Returns:
            The trials.

        Raises:
            ConfigError: No trial has the metric.
        """
        if sort is None:
            return self._journal.trials(last)
        known = self._journal.metrics()
        if sort not in known:
            raise ConfigError(f"--sort: no trial has the metric '{sort}'; {nearest(sort, known)}")
        directions = {o.metric: o.sign for o in self.objectives}
        return self._journal.trials(last, sort, directions.get(sort, metric_of(sort).sign) == -1)

    @property
    def count(self) -> int:
        """The number of trials."""
        return self._journal.count()

    @property
    def objectives(self) -> list[Objective]:
        """What the search optimises; the first objective ranks trials."""
        return self._config_of("objectives", "pretraining").optimised  # which has a metric of its own

    @property
    def protocol(self) -> str:
        """``episodes`` or ``full-way``: what accuracies are means over."""
        return self._config_of("evaluation").evaluation.protocol

    @property
    def class_names(self) -> bool:
        """Whether support sets have the names of the classes, too."""
        tasks = self._value("config", dict[str, Any], {}).get("tasks")
        return isinstance(tasks, dict) and tasks.get("class_names") is True

    def _config_of(self, *names: str) -> Config:
        """Return a config with some sections of the run's; without the plugins, whose code must not be run."""
        config = self._value("config", dict[str, Any], {})
        try:
            return Config.model_validate({name: config[name] for name in names if config.get(name)})
        except (ValidationError, RecursionError) as error:
            raise RunError(f"the config in the journal of {self.directory} cannot be read") from error

    @property
    def report(self) -> Mapping[str, Any]:
        """The meta-test results of trials and references; empty until the search has ended.

        ``trials`` holds metrics by trial id, ``references`` metrics by name, ``comparisons`` those of models trained
        like the trial ``compared``, ``latency`` the measured latencies, and ``unmeasured`` the reasons why some of them
        are missing, by name. ``right`` holds the correct queries, out of ``queries``, in each of the same episodes.
        """
        return self._value("report", MetaTest, {})

    @property
    def verdict(self) -> str:
        """What the best trial is worth, in one to three sentences; empty before the end of the search."""
        ranked = rank(self.trials, self.objectives)
        return verdict_of(self.report, ranked[0]) if ranked else ""

    @property
    def findings(self) -> Mapping[str, Any]:
        """The results of the strategy's job, such as the architectures of a supernet; empty without a job."""
        return self._value("job", dict[str, Any], {})

    @property
    def supernet(self) -> np.ndarray | None:
        """The weights at the end of the strategy's job (safetensors); None without any.

        Raises:
            RunError: The file is damaged.
        """
        from nas_meta.models.state import damage_of_weights

        path = self.directory / SUPERNET
        damage = damage_of_weights(path) if path.is_file() else None
        if damage is not None:
            raise RunError(
                f"the supernet cannot be read: {path} is damaged ({damage}); 'nas-meta resume' trains it again"
            )
        return np.fromfile(path, dtype=np.uint8) if path.is_file() else None

    @property
    def cpus(self) -> float:
        """CPUs per trial, which set the number of its threads; 0 in old journals."""
        return self._value("cpus", Annotated[float, Field(ge=0, le=1e6)], 0.0)

    @property
    def fingerprint(self) -> Fingerprint | None:
        """Digests of the data and the models that the search began with; None in old journals."""
        return recorded_fingerprint(self._journal)

    def environment_of(self, trial: Trial) -> Environment | None:
        """Return the plugin files, versions and processor that a trial ran with.

        Args:
            trial: The trial.

        Returns:
            The environment of the process that started the trial; None if that recorded none.
        """
        before = [e for e in recorded_environments(self._journal) if e.since <= trial.started]
        return before[-1] if before else None

    @property
    def damage(self) -> str | None:
        """Why some of the journal rows requested so far could not be read; None if all could."""
        return self._journal.damage

    def _value(self, key: str, kind: Any, default: Any) -> Any:
        """Return a validated value of the journal."""
        return validated(kind, self._journal.get(key, default), key)

    @property
    def rung_reports(self) -> list[tuple[RungReport, bool]]:
        """What trials reported at rungs, in order, and whether they continued."""
        return self._journal.reports()

    @property
    def steps(self) -> StepTotals:
        """The meta-training steps of the trials that have ended."""
        ended = [t for t in self.trials if t.status != "running"]
        # A trial that failed or was interrupted saved nothing.
        return StepTotals(sum(t.fidelity for t in ended), sum(t.planned if t.metrics else t.fidelity for t in ended))

    @property
    def best(self) -> Trial:
        """The completed trial that is best by the first objective; of equal ones, by the next.

        Raises:
            RunError: No trial is completed.
        """
        ranked = rank(self.trials, self.objectives)
        if not ranked:
            raise RunError(f"{self.directory} has no completed trial yet")
        return ranked[0]

    @property
    def pareto(self) -> list[Trial]:
        """The Pareto front of completed trials, best first by the first objective."""
        return pareto(self.trials, self.objectives)

    def trial(self, number: int) -> Trial:
        """Return a trial.

        Args:
            number: The id of the trial.

        Returns:
            The trial.

        Raises:
            RunError: There is no trial with that id.
        """
        for trial in self.trials:
            if trial.id == number:
                return trial
        raise RunError(f"{self.directory} has no trial {number}; it has {len(self.trials)} trials")

    def pretrained(self, trial_id: int) -> dict[str, Any] | None:
        """Return the record of a trial's pre-training.

        Args:
            trial_id: The id of the trial.

        Returns:
            ``key`` of its pre-trained weights, and ``donor``, the key of the weights that they inherit from; None if
            the trial was not pre-trained.

        Raises:
            RunError: The record is invalid.
        """
        from nas_meta.journal.pretraining_record import record_of

        return record_of(self._journal, trial_id)

    def test_of(self, trial: Trial) -> Mapping[str, float]:
        """Return the meta-test metrics of a trial.

        Args:
            trial: The trial.

        Returns:
            The metrics by name; empty if the trial was not tested.
        """
        return self.report.get("trials", {}).get(str(trial.id), {})

    def weights_of(self, trial: Trial) -> bytes:
        """Return the trained weights of a trial, after its final training if that made it better.

        Args:
            trial: The trial.

        Returns:
            The weights (safetensors).

        Raises:
            RunError: The weights were not kept, or the file is damaged.
        """
        return read_weights(self.directory, trial.id)

    @property
    def final_training(self) -> Mapping[int, Mapping[str, Any]]:
        """The results of final training by trial id; empty without one.

        A result has the ``metrics`` after the training and ``kept``, whether they are better than those of the trial,
        so that the new weights are used; or the ``error`` that ended it.
        """
        return final_results(self._journal)

    @property
    def final_sentences(self) -> Mapping[int, str]:
        """What the final training of trials gained: by trial id, a sentence without a full stop."""
        results, objective = self.final_training, self.objectives[0]
        return {t.id: final_sentence(t, results[t.id], objective) for t in self.trials if t.id in results}


def load_run(path: str | Path, allow_plugins: bool = False) -> Run:
    """Open a run directory; nothing in it is executed.

    Args:
        path: The run directory.
        allow_plugins: Whether the code of plugin files that the run's config names may be run once it is needed.

    Returns:
        The run.

    Raises:
        RunError: The directory is not a run, it is damaged, or a newer version wrote it.
    """
    run = Run(Path(path), allow_plugins)
    run.count  # noqa: B018  reads the journal, so that a damaged one is refused here
    return run


def new_run_dir(path: str | Path | None) -> Path:
    """Create the directory of a new run.

    Args:
        path: The directory, which may exist; by default a new one under ``runs/`` named after the time.

    Returns:
        The directory.

    Raises:
        RunError: The directory already holds a run, or it cannot be created.
    """
    if path is None:
        stem = time.strftime("%Y%m%d-%H%M%S")
        path = next(p for i in range(1000) if not (p := Path("runs") / (f"{stem}-{i}" if i else stem)).exists())
    path = Path(path)
    if Journal.exists(path):
        raise RunError(
            f"{path} already holds a run; resume it (--resume; resume=True in Python), or choose another run directory"
        )
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"{path} cannot be created: {error.strerror}") from error
    return path


def rank(trials: Sequence[Trial], objectives: Sequence[Objective]) -> list[Trial]:
    """Rank completed trials by the first objective.

    Args:
        trials: The trials; those without a value for every objective are left out.
        objectives: What the search optimises.

    Returns:
        The trials, best first; equal ones as :func:`place` orders them.
    """
    done = [t for t in trials if t.status == "completed" and all(o.metric in t.metrics for o in objectives)]
    return sorted(done, key=lambda t: place(t, objectives))


def pareto(trials: Sequence[Trial], objectives: Sequence[Objective]) -> list[Trial]:
    """Return the Pareto front: the completed trials that no other one equals in every objective and beats in one.

    Args:
        trials: The trials; those without a value for every objective are left out.
        objectives: What the search optimises.

    Returns:
        The trials of the front, best first by the first objective.
    """
    ranked = rank(trials, objectives)
    if not ranked:
        return []
    return [ranked[i] for i in pareto_front(np.array([signed_values(t.metrics, objectives) for t in ranked]))]
