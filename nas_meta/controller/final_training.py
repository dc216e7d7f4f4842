"""The final training of a search: the best trials are trained further, and the better weights are used from then on.

The trials stay what they were, so that all of them remain comparable: the journal keeps their metrics, and the run
directory their weights. The results of final training have their own key in the journal, and their own files.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nas_meta.config.final_training_section import FinalTrainingSection
from nas_meta.config.resolved import ResolvedConfig
from nas_meta.config.teacher import Teacher, teacher_of
from nas_meta.controller.calls import Call, run_calls
from nas_meta.core.files import read_array, write_atomically
from nas_meta.core.guard import first_line
from nas_meta.core.objectives import Objective
from nas_meta.core.signals import Interrupted
from nas_meta.errors import NasMetaError
from nas_meta.evaluation.final_training import FinalTraining
from nas_meta.evaluation.trial import Evaluation
from nas_meta.execution.engine import Engine, Event
from nas_meta.journal.database import Journal
from nas_meta.journal.final_training import FINAL_TRAINING, final_results, is_better
from nas_meta.journal.leaderboard import Leaderboard
from nas_meta.journal.records import Trial
from nas_meta.journal.weights import final_weights_path, trials_with_weights, weights_path
from nas_meta.space.architecture import Architecture

DISTILL = "final_training.distill"


@dataclass
class FinalStage:
    """The final training of one search.

    Attributes:
        section: What the config asks for.
        directory: The run directory.
        journal: The journal of the run.
        teacher: The teacher, which is trained and embeds the examples in :meth:`run`; None without distillation.
        training: What the trials went through; None before :meth:`run`.
    """

    section: FinalTrainingSection
    directory: Path
    journal: Journal
    teacher: Teacher | None = None
    training: FinalTraining | None = None

    @property
    def options(self) -> dict[str, Any]:
        """What the result of a trial depends on; the journal records it."""
        return self.section.model_dump(mode="json", exclude={"trials"})

    def run(
        self, engine: Engine, leaderboard: Leaderboard, retries: int, stopped: Callable[[], bool],
        trained: Callable[[int, int], None],
    ) -> None:  # fmt: skip
        """Train the best trials further, except those that an earlier session has trained alike.

        A training that fails does not end the search: the journal keeps the reason.

        Args:
            engine: Trains on its workers.
            leaderboard: The trials of the search.
            retries: How often a training is retried after the death of its worker.
            stopped: Called after every event; returns whether to stop with the results so far.
            trained: Called with the number of trials that are trained, and the number of all.
        """
        section, rows = self.section, final_results(self.journal)
        stored = [t for t in leaderboard.best(section.trials) if weights_path(self.directory, t.id).is_file()]
        waiting = {t.id: t for t in stored if not self._is_done(rows.get(t.id), t)}
        try:
            teacher = self.teacher.embeddings(stopped) if self.teacher else None
            self.training = FinalTraining(section.steps, section.lr, section.distill, teacher)
            calls = [Call(t.id, "train_further", self._arguments(t)) for t in waiting.values()]
        except Interrupted:
            return
        except (NasMetaError, OSError) as error:
            for trial in waiting.values():
                rows[trial.id] = self._not_kept(trial, error=first_line(error))
            self._write(rows)
            return
        trained(0, len(calls))
        for done, event in enumerate(run_calls(engine, calls, retries, stopped), start=1):
            rows[event.key] = self._kept(waiting[event.key], event, leaderboard.objectives[0])
            self._write(rows)
            trained(done, len(calls))

    def of(self, trial: Trial) -> FinalTraining | None:
        """Return the final training that a trial is used with; None if its weights are those of the search."""
        row = final_results(self.journal).get(trial.id)
        return self.training if row is not None and self._is_done(row, trial) and row["kept"] else None

    def _is_done(self, row: Mapping[str, Any] | None, trial: Trial) -> bool:
        """Whether a result is that of this trial and of these options, and its weights are there if they are used."""
        if row is None or row["error"] or row["seed"] != trial.seed or row["options"] != self.options:
            return False
        return not row["kept"] or final_weights_path(self.directory, trial.id).is_file()

    def _arguments(self, trial: Trial) -> tuple[Any, ...]:
        """Return the arguments of the call that trains a trial further."""
        weights = read_array(weights_path(self.directory, trial.id)).tobytes()
        return Architecture(trial.architecture), weights, trial.seed, self.training

    def _kept(self, trial: Trial, event: Event, objective: Objective) -> dict[str, Any]:
        """Write the weights of a training if they are better, and return its row of the journal."""
        path = final_weights_path(self.directory, trial.id)
        if not event.error and is_better(event.value.metrics, trial.metrics, objective):
            write_atomically(path, event.value.weights)
            return self._row(trial, metrics=dict(event.value.metrics), kept=True)
        if event.error:
            return self._not_kept(trial, error=event.error)
        return self._not_kept(trial, dict(event.value.metrics))

    def _not_kept(self, trial: Trial, metrics: Mapping[str, float] | None = None, error: str = "") -> dict[str, Any]:
        """Delete the weights of a final training with other options, and return the row of a trial that has none."""
        final_weights_path(self.directory, trial.id).unlink(missing_ok=True)
        return self._row(trial, metrics, error=error)

    def _row(
        self, trial: Trial, metrics: Mapping[str, float] | None = None, kept: bool = False, error: str = ""
    ) -> dict[str, Any]:
        found = {"metrics": dict(metrics or {}), "kept": kept, "error": error}
        return {"trial": trial.id, "seed": trial.seed, "options": self.options, **found}

    def _write(self, rows: Mapping[int, Mapping[str, Any]]) -> None:
        self.journal.set(FINAL_TRAINING, list(rows.values()))


def final_stage(
    resolved: ResolvedConfig, evaluation: Evaluation, directory: Path, journal: Journal | None
) -> FinalStage | None:
    """Prepare the final training of a search, with its teacher loaded but not trained.

    Where an earlier session had a final training and this one has none, the weights of the search are used again.

    Args:
        resolved: The config.
        evaluation: The evaluation of the search.
        directory: The run directory.
        journal: The journal of the run; None only checks the teacher.

    Returns:
        The final training; None if the config asks for none.

    Raises:
        ConfigError: The teacher cannot be loaded, or the space has no full model.
    """
    section, teacher = resolved.sections.final_training, None
    if section is None:
        if journal is not None and journal.get(FINAL_TRAINING):
            for number in trials_with_weights(directory):
                final_weights_path(directory, number).unlink(missing_ok=True)
            journal.set(FINAL_TRAINING, [])
        return None
    if section.distill is not None and section.distill.weight:
        teacher = teacher_of(evaluation, resolved, section.distill, DISTILL)
    return None if journal is None else FinalStage(section, directory, journal, teacher)
