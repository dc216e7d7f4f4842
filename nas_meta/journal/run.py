"""A run directory: made for a new run, and opened for reading: config, trials, best and report."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field, ValidationError

from nas_meta.config.plugin_trust import refuse_plugin_files
from nas_meta.config.resolved import ResolvedConfig, resolve
from nas_meta.config.sections import Config
from nas_meta.core.objectives import Objective, pareto_front, signed_values
from nas_meta.errors import ConfigError, RunError, nearest
from nas_meta.evaluation.metrics import metric_of
from nas_meta.journal.database import Journal
from nas_meta.journal.records import Trial
from nas_meta.journal.row_checks import MetaTest, validated
from nas_meta.strategy.stopping.rule import RungReport

SUPERNET = "supernet.safetensors"
CHECKPOINT = "supernet.checkpoint"  # of one that is still in training


@dataclass(frozen=True)
class Steps:
    """Meta-training steps: those that trials took, and those they would have taken had none ended early."""

    taken: int
    planned: int

    @property
    def saved(self) -> float:
        """The share that was saved, from 0 to 1."""
        return 1 - self.taken / self.planned if self.planned else 0.0


@dataclass(frozen=True)
class Run:
    """A search as its journal tells it, also while it still runs."""

    directory: Path
    allow_plugins: bool = False
    """Whether the code of plugin files that its config names may be run."""

    @cached_property
    def _journal(self) -> Journal:
        return Journal.open(self.directory)

    @cached_property
    def config(self) -> ResolvedConfig:
        """The config that the search ran with.

        Raises:
            PluginError: it names a plugin file, whose code would be run.
        """
        document = self._known("config", dict[str, Any], {})
        if not self.allow_plugins:
            refuse_plugin_files(document, self.directory)
        from nas_meta.config.pretraining import with_run_artifacts

        return with_run_artifacts(resolve(document), self.directory)

    @property
    def trials(self) -> list[Trial]:
        """Every trial, in the order they started."""
        return self._journal.trials()

    def listed(self, last: int | None = None, sort: str | None = None) -> list[Trial]:
        """Some trials, without reading the others: the last ones, or the best by a metric.

        Raises:
            ConfigError: no trial has the metric.
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
        """How many trials there are."""
        return self._journal.count()

    @property
    def objectives(self) -> list[Objective]:
        """What the search optimises; the first ranks trials."""
        try:
            # Without the plugins: to look at a run executes nothing of it.
            return Config(objectives=self._known("config", dict[str, Any], {}).get("objectives")).optimised
        except (ValidationError, RecursionError) as error:
            raise RunError(f"the config in the journal of {self.directory} cannot be read") from error

    @property
    def report(self) -> Mapping[str, Any]:
        """Meta-test results by trial id and the rows to compare with; empty until the search has ended."""
        return self._known("report", MetaTest, {})

    @property
    def findings(self) -> Mapping[str, Any]:
        """What the strategy's job found, such as a trained supernet's architectures; empty where it had none."""
        return self._known("job", dict[str, Any], {})

    @property
    def supernet(self) -> np.ndarray | None:
        """The weights that the strategy's job ended with (safetensors); None where it had none."""
        path = self.directory / SUPERNET
        return np.fromfile(path, dtype=np.uint8) if path.is_file() else None

    @property
    def cpus(self) -> float:
        """CPUs that a trial had, for the number of its threads."""
        return self._known("cpus", Annotated[float, Field(ge=0, le=1e6)], 0.0)

    @property
    def damage(self) -> str | None:
        """What of the journal could not be read, of that what was asked for so far; None where all could."""
        return self._journal.damage

    def _known(self, key: str, kind: Any, default: Any) -> Any:
        return validated(kind, self._journal.get(key, default), key)

    @property
    def rung_reports(self) -> list[tuple[RungReport, bool]]:
        """What trials reported at rungs, in order, and whether they went on."""
        return self._journal.reports()

    @property
    def steps(self) -> Steps:
        """The meta-training steps of the trials that have ended."""
        ended = [t for t in self.trials if t.status != "running"]
        # One that failed or was interrupted saved nothing.
        return Steps(sum(t.fidelity for t in ended), sum(t.planned if t.metrics else t.fidelity for t in ended))

    @property
    def best(self) -> Trial:
        """The completed trial that is best by the first objective.

        Raises:
            RunError: no trial is completed.
        """
        ranked = rank(self.trials, self.objectives)
        if not ranked:
            raise RunError(f"{self.directory} has no completed trial yet")
        return ranked[0]

    @property
    def pareto(self) -> list[Trial]:
        """The trials that no other beats in every objective, best first."""
        return pareto(self.trials, self.objectives)

    def trial(self, number: int) -> Trial:
        """The trial of that id.

        Raises:
            RunError: there is none.
        """
        for trial in self.trials:
            if trial.id == number:
                return trial
        raise RunError(f"{self.directory} has no trial {number}; it has {len(self.trials)}")

    def pretrained(self, trial_id: int) -> dict[str, Any] | None:
        """The ``key`` of the weights that a trial was pre-trained to, and of their ``donor``; None where it was not."""
        from nas_meta.journal.pretraining_record import record_of

        return record_of(self._journal, trial_id)

    def test_of(self, trial: Trial) -> Mapping[str, float]:
        """The meta-test metrics of a trial; empty where it was not tested."""
        return self.report.get("trials", {}).get(str(trial.id), {})

    def weights_of(self, trial: Trial) -> bytes:
        """The trained weights of a trial (safetensors).

        Raises:
            RunError: they were not kept.
        """
        path = weights_path(self.directory, trial.id)
        if not path.is_file():
            kept = sorted(int(p.stem) for p in path.parent.glob("*.safetensors") if p.stem.isdecimal())
            known = ", ".join(map(str, kept)) or "none"
            raise RunError(f"the weights of trial {trial.id} were not kept; kept are those of {known}")
        return path.read_bytes()


def load_run(path: str | Path, allow_plugins: bool = False) -> Run:
    """Opens a run directory; nothing in it is executed.

    Args:
        allow_plugins: whether the code of plugin files that its config names may be run when something needs them.

    Raises:
        RunError: it is not one, is damaged, or a newer version wrote it.
    """
    run = Run(Path(path), allow_plugins)
    run.count  # noqa: B018  reads the journal now, so that a bad one is refused here
    return run


def new_run_dir(path: str | Path | None) -> Path:
    """Creates the directory of a new run.

    Raises:
        RunError: it holds a run already, or cannot be made.
    """
    if path is None:
        stem = time.strftime("%Y%m%d-%H%M%S")
        path = next(p for i in range(1000) if not (p := Path("runs") / (f"{stem}-{i}" if i else stem)).exists())
    path = Path(path)
    if Journal.begun(path):
        raise RunError(
            f"{path} holds a run already; --resume goes on with it, or name another directory with --run-dir"
        )
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"{path} cannot be made: {error.strerror}") from error
    return path


def weights_path(directory: Path, trial_id: int) -> Path:
    """Where the weights of a trial lie while they are kept."""
    return directory / "weights" / f"{trial_id}.safetensors"


def write_atomically(path: Path, data: Any) -> None:
    """Writes a file so that it is never seen half."""
    temporary = path.with_suffix(".part")
    temporary.write_bytes(data)
    temporary.rename(path)


def rank(trials: Sequence[Trial], objectives: Sequence[Objective]) -> list[Trial]:
    """Completed trials, best first by the first objective; ties go to the earlier trial."""
    objective = objectives[0]
    done = [t for t in trials if t.status == "completed" and all(o.metric in t.metrics for o in objectives)]
    return sorted(done, key=lambda t: (-objective.sign * t.metrics[objective.metric], t.id))


def pareto(trials: Sequence[Trial], objectives: Sequence[Objective]) -> list[Trial]:
    """The completed trials that no other dominates, best first by the first objective.

    One trial dominates another that it equals or beats in every objective and beats in at least one.
    """
    ranked = rank(trials, objectives)
    if not ranked:
        return []
    return [ranked[i] for i in pareto_front(np.array([signed_values(t.metrics, objectives) for t in ranked]))]
